"""Ask several models the same prompts, and show the answers as a table, JSON or one HTML file.

One model is in memory at a time. Sampling is greedy by default; each model uses its own prompt
format.
"""

import re
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.errors import ContextOverflow, LlmchatError, UsageError
from llmchat.evaluate.candidates import Candidate, answer, with_model
from llmchat.evaluate.early_end import keep_results
from llmchat.evaluate.score_plot import speed_figure
from llmchat.models.open_model import OpenModel
from llmchat.output.html_page import fill
from llmchat.output.plots.svg import PAGE_STYLE, figure_html
from llmchat.output.progress import StepProgress
from llmchat.output.terminal_text import harmless
from llmchat.prompt import plain_text
from llmchat.settings import World

_PAGE = Path(__file__).with_name("comparison.html")
# Narrower columns are hard to read; the answers are then printed one below the other.
NARROWEST = 34
# Control characters, which a terminal would execute.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Answer(Struct, frozen=True, omit_defaults=True):
    """The answer of one model to one prompt.

    same_as: the first model with exactly the same answer; error: why there is no answer.
    """

    model: str
    """Label of the model."""
    text: str = ""
    """The answer."""
    thinking: str = ""
    """The model's reasoning before the answer."""
    finish_reason: str = ""
    """Why the answer ended."""
    prompt_tokens: int = 0
    """Tokens of the prompt."""
    reply_tokens: int = 0
    """Tokens of the answer."""
    tokens_per_second: float = 0.0
    """Decode speed."""
    seconds: float = 0.0
    """Time it took."""
    same_as: str = ""
    """First model with the same answer."""
    error: str = ""
    """Why it could not be asked."""


class Comparison(Struct):
    """Prompts, and for each one its answers, in the order of the models."""

    models: list[str]
    prompts: list[Conversation]
    answers: list[list[Answer]]
    interrupted: bool = False
    error: LlmchatError | None = None


class _Turn(Struct, forbid_unknown_fields=True):
    role: str
    content: str
    input: str = ""


class _Wire(Struct, forbid_unknown_fields=True):
    prompt: str | None = None
    messages: list[_Turn] | None = None
    input: str = ""
    system: str = ""


def read_prompts(world: World, words: Sequence[str], files: Sequence[str]) -> list[Conversation]:
    """Read prompts from the command line (`-`: stdin) and from files; without any, from a pipe."""
    places = [*words]
    if not words and not files:
        if world.stdin.isatty():
            raise UsageError(
                "there is no prompt",
                '`llmchat compare -m A -m B "…"`, or a file with one a line: -f FILE',
            )
        places = ["-"]
    found = [
        one
        for word in places
        for one in (_from_file(world, "-") if word == "-" else [Conversation().say(word)])
    ]
    found += [one for file in files for one in _from_file(world, file)]
    if not found:
        raise UsageError("there is no prompt: the input is empty")
    return found


def _from_file(world: World, file: str) -> list[Conversation]:
    """Read one prompt a line, or one JSON object a line.

    An object is {"prompt": …} or {"messages": […]}, with `system` and `input` if needed.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(world.read_text(file).split("\n"), 1)
        if line.strip()
    ]
    if not all(line.startswith("{") for _, line in lines):
        return [Conversation().say(line) for _, line in lines]
    found = []
    for number, line in lines:
        try:
            found.append(_conversation(msgspec.json.decode(line, type=_Wire)))
        except (msgspec.DecodeError, UsageError) as error:
            raise UsageError(
                f"{'stdin' if file == '-' else file}, line {number}: {error}"
            ) from error
    return found


def _conversation(wire: _Wire) -> Conversation:
    if (wire.prompt is None) == (wire.messages is None):
        raise UsageError("it needs a `prompt` or `messages`, one of them")
    if wire.messages is None:
        spoken = [Message("user", wire.prompt or "", wire.input)]
    else:
        spoken = [
            msgspec.convert({"role": one.role, "text": one.content, "input": one.input}, Message)
            for one in wire.messages
        ]
    if not spoken or spoken[-1].role != "user":
        raise UsageError("the last message must be the user's")
    return Conversation((*([Message("system", wire.system)] if wire.system else []), *spoken))


def compare(
    candidates: Sequence[Candidate],
    prompts: Sequence[Conversation],
    world: World,
    *,
    seed: int = 0,
    quiet: bool = False,
) -> Comparison:
    """Ask every model every prompt. Ctrl-C and errors end the run and keep the answers so far."""
    result = Comparison([one.label for one in candidates], list(prompts), [[] for _ in prompts])
    progress = StepProgress(world, len(candidates) * len(prompts), quiet=quiet)
    with keep_results(result, progress):
        for candidate in candidates:
            progress.begin(candidate.label, len(prompts))
            with_model(
                candidate, world, _answer_all(candidate, result, progress, seed), quiet=quiet
            )
    return result


def _answer_all(candidate: Candidate, result: Comparison, progress: StepProgress, seed: int) -> Any:
    def work(opened: OpenModel) -> None:
        for number, prompt in enumerate(result.prompts):
            progress.started(f"prompt {number + 1}")
            answered = _ask(prompt, opened, candidate.label, seed + number)
            same = next(
                (
                    one.model
                    for one in result.answers[number]
                    if not one.error and one.text == answered.text
                ),
                "",
            )
            result.answers[number].append(replace(answered, same_as="" if answered.error else same))
            progress.done()

    return work


def _ask(prompt: Conversation, opened: OpenModel, label: str, seed: int) -> Answer:
    started = time.perf_counter()
    try:
        answered = answer(
            prompt, opened.preset, opened.engine, replace(opened.preset.sampling, seed=seed)
        )
    except ContextOverflow as error:
        return Answer(label, error=error.message)
    finish, seconds = answered.finish, round(time.perf_counter() - started, 4)
    speed = round(finish.tokens_per_second, 2)
    return Answer(
        label,
        answered.text,
        answered.thinking,
        finish.reason,
        finish.prompt_tokens,
        finish.reply_tokens,
        speed,
        seconds,
    )


class ComparedPrompt(Struct, frozen=True):
    """A prompt with the answers of the models."""

    messages: tuple[Message, ...]
    """The prompt."""
    answers: list[Answer]
    """One answer for each model, in their order."""


class ComparisonJson(Struct, frozen=True):
    """What `llmchat compare --json` prints."""

    models: list[str]
    """Labels of the models."""
    interrupted: bool
    """Whether Ctrl-C ended the run."""
    error: str | None
    """What ended the run early."""
    prompts: list[ComparedPrompt]
    """One entry for each prompt."""


def for_json(result: Comparison) -> ComparisonJson:
    """The comparison for `--json`."""
    return ComparisonJson(
        result.models,
        result.interrupted,
        result.error.message if result.error else None,
        [
            ComparedPrompt(prompt.messages, answers)
            for prompt, answers in zip(result.prompts, result.answers, strict=True)
        ],
    )


def note(one: Answer) -> str:
    """The facts of an answer: `12 tokens, 34.5 tok/s, stop, same as a`."""
    if one.error:
        return f"not asked: {one.error}"
    speed = f"{one.tokens_per_second:.1f} tok/s" if one.tokens_per_second else ""
    same = f"= {one.same_as}" if one.same_as else ""
    return ", ".join(
        filter(
            None,
            (
                f"{one.reply_tokens} token{'' if one.reply_tokens == 1 else 's'}",
                speed,
                one.finish_reason,
                same,
            ),
        )
    )


def asked(prompt: Conversation) -> str:
    """The prompt to show: the earlier messages and the last question."""
    spoken = [
        plain_text(one) if one.role == "user" else f"({one.role}) {one.text}"
        for one in prompt.messages
    ]
    return "\n".join(spoken)


def show(result: Comparison, world: World) -> None:
    """Side by side on a wide terminal, otherwise one below the other."""
    width = world.columns if world.pretty else 0
    for number, (prompt, answers) in enumerate(zip(result.prompts, result.answers, strict=True), 1):
        if not answers:
            continue
        if width // len(result.models) >= NARROWEST:
            _side_by_side(number, prompt, answers, world, width)
            continue
        print(f"[{number}] {_shown(asked(prompt))}\n", file=world.stdout)
        for one in answers:
            print(f"{one.model} ({note(one)})\n{_shown(one.text)}\n", file=world.stdout)


def _side_by_side(
    number: int, prompt: Conversation, answers: Sequence[Answer], world: World, width: int
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=box.SIMPLE_HEAD,
        width=width,
        title=Text(f"[{number}] {_shown(asked(prompt))}"),
        title_justify="left",
        show_footer=True,
    )
    for one in answers:
        grid.add_column(
            Text(one.model), footer=Text(note(one), style="dim"), ratio=1, overflow="fold"
        )
    grid.add_row(*(Text(_shown(one.text)) for one in answers))
    Console(
        file=world.stdout,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=True,
    ).print(grid)


def _shown(text: str) -> str:
    return harmless(_CONTROL.sub("\ufffd", text))


def as_html(result: Comparison) -> str:
    """A page that needs no other file: no script, nothing fetched, every text escaped."""
    from markupsafe import Markup

    pairs = zip(result.prompts, result.answers, strict=True)
    sections = [
        {"number": number, "prompt": asked(prompt), "answers": list(map(_card, answers))}
        for number, (prompt, answers) in enumerate(pairs, 1)
        if answers
    ]
    return fill(
        _PAGE,
        style=Markup(PAGE_STYLE),
        speeds=Markup(_speeds(result)),
        title=" · ".join(result.models),
        interrupted=result.interrupted or result.error is not None,
        sections=sections,
    )


def _speeds(result: Comparison) -> str:
    """A chart of the decode speeds; empty where there is nothing to compare."""
    found: dict[str, list[float]] = {model: [] for model in result.models}
    for one in chain.from_iterable(result.answers):
        if one.tokens_per_second:
            found.setdefault(one.model, []).append(one.tokens_per_second)
    figure = speed_figure(list(found.items()))
    return figure_html(figure) if figure.compares else ""


def _card(one: Answer) -> dict[str, object]:
    return {
        "model": one.model,
        "thinking": one.thinking,
        "text": one.text,
        "note": note(one),
        "same": bool(one.same_as),
    }
