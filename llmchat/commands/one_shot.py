"""One question, one answer: the answer alone on stdout, everything else on stderr."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial

from msgspec import UNSET, Struct
from msgspec.structs import replace

from llmchat.answer_form import fault_of, value_of
from llmchat.answer_report import CitedSource, SentWindow, Timings, ToolUse, Usage
from llmchat.attachments.given_files import GivenText
from llmchat.chat import Chat, Event
from llmchat.commands.outputs import Answer, OneAnswer
from llmchat.conversation import Message, material
from llmchat.engines.capabilities import InBackground, unwrap
from llmchat.errors import LlmchatError, UsageError
from llmchat.output.formatting import counted
from llmchat.output.progress import StatusLine
from llmchat.output.terminal_text import fit_for
from llmchat.process.streams import MOST_ASKED
from llmchat.roles import Role
from llmchat.settings import World
from llmchat.tools.toolbox import Result
from llmchat.tools.web.settings import WebSettings
from llmchat.ui import printing
from llmchat.ui.answer_display import AnswerDisplay
from llmchat.ui.json_output import print_json
from llmchat.ui.map_reading import notes_for, with_notes
from llmchat.ui.prefill_progress import PrefillProgress, on_interrupt
from llmchat.ui.renderer import choose_renderer
from llmchat.ui.source_lines import print_sources
from llmchat.ui.web_question import with_web

INTERRUPTED, BROKEN_PIPE = 130, 141


class NoCode(LlmchatError):
    """The answer has no code block that `--extract` could print."""


def question(
    world: World, prompt: str | None, files: Sequence[GivenText] = (), role: Role | None = None
) -> Message | None:
    """The user's message from piped text, files and PROMPT; None to open a chat at a terminal.

    With a PROMPT, piped text and files are its material; without one, piped text is the question.
    A role whose prompt has no place for a question is like a PROMPT; an empty PROMPT asks it alone.
    """
    asks = bool(role and role.prompt and not role.takes_input)
    piped = "" if world.stdin.isatty() else world.read_text("-", MOST_ASKED).strip()
    texts = [(one.name, one.text) for one in files]
    text = "" if prompt in (None, "-") else str(prompt)
    if text or asks:
        texts.insert(0, ("stdin", piped))
    elif piped:
        text = piped
    if world.interactive and not text and prompt is None and not any(one[1] for one in texts):
        return None
    texts = [one for one in texts if one[1]]
    if not text and not texts and not (asks and prompt == ""):
        raise UsageError(
            "there is no question: stdin is empty and no PROMPT was given",
            '`llmchat chat "…"` asks one, a terminal opens a chat',
        )
    input, parts = material(texts)
    return Message("user", text, input, files=parts)


def from_web(
    chat: Chat, world: World, question: Message, settings: WebSettings, *, quiet: bool
) -> Message:
    """The question with pages of the web as its material."""
    if not quiet:
        print("searching the web …", file=world.stderr, flush=True)
    return with_web(chat, question, settings)


def note_on(world: World, *, quiet: bool) -> Callable[[str], None]:
    """Prints notes on stderr, or nothing."""
    if quiet:
        return lambda line: None
    return lambda line: print(f"note: {line}", file=world.stderr)


def check_map(question: Message | None) -> None:
    """Raise UsageError where --map has nothing to read, or nothing to ask."""
    if question is None or not question.text or not question.input:
        raise UsageError(
            "--map takes a PROMPT and piped text or -f",
            '`llmchat chat --map -f book.txt "Summarise this."` reads a book',
        )


def map_all(
    chat: Chat,
    world: World,
    question: Message,
    answer: Callable[[Message], int],
    quiet: bool,
    *,
    keep: bool,
) -> int:
    """Read all material in pieces, and answer from the notes; returns the exit code.

    keep: whether a run that is stopped may leave its notes for the next one.
    """
    notes, line = notes_for(chat, world, question, keep=keep), StatusLine(world, quiet=quiet)
    try:
        asked = with_notes(chat, question, notes, line)
    except KeyboardInterrupt:
        line.close()
        line.print("note: stopped; the same command continues from here" if keep else "")
        return INTERRUPTED
    finally:
        line.close()
    code = answer(asked)
    if code == 0:
        notes.forget()
    return code


class Output(Struct, frozen=True):
    """How the answer is printed. extract: its first code block alone. answers: how many.

    turns: questions that follow; the last answer is printed.
    """

    json: bool = False
    stream: bool = True
    plain: bool = False
    quiet: bool = False
    extract: bool = False
    answers: int = 1
    turns: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether text is printed as it arrives."""
        return self.stream and not self.json and not self.extract


def run(chat: Chat, world: World, question: Message, output: Output) -> int:
    """Ask, print, and return the exit code."""
    try:
        return _ask(chat, world, question, output)
    finally:
        if (note := chat.take_notice()) and not output.quiet:
            print(f"note: {note}", file=world.stderr)


def _ask(chat: Chat, world: World, question: Message, output: Output) -> int:
    try:
        earlier, question = _before_last(chat, world, question, output)
        with closing(chat.ask(question)) as events:
            _print_number(1, world, output)
            display = _show(events, world, output)
            code = _extracted(chat, display.text) if output.extract else None
        if output.answers > 1:
            return _ask_again(chat, world, display, earlier, output)
        _print_complete(chat, world, display, code, earlier, output)
    except KeyboardInterrupt:
        print(file=world.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has left. Python must not complain when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), world.stdout.fileno())
        return BROKEN_PIPE
    if not output.quiet and not output.json:
        _note(chat, display.text, world)
    if output.extract and code is None:
        raise NoCode(
            "the answer has no code block", "without --extract the whole answer is printed"
        )
    return _report_fault(chat, display.text, world, output)


def _before_last(
    chat: Chat, world: World, question: Message, output: Output
) -> tuple[list[OneAnswer], Message]:
    """Ask all but the last question of a role with turns; its answers, and that question."""
    questions = [question, *(Message("user", turn) for turn in output.turns)]
    shown = world.stderr.isatty() and not (output.quiet or output.json)
    unseen, answers = replace(output, json=True), []
    for number, one in enumerate(questions[:-1], 1):
        if shown:
            print(f"turn {number} of {len(questions)} …", file=world.stderr, flush=True)
        with closing(chat.ask(one)) as events:
            answers.append(_one_answer(chat, _show(events, world, unseen)))
    return answers, questions[-1]


def _ask_again(
    chat: Chat, world: World, first: AnswerDisplay, earlier: list[OneAnswer], output: Output
) -> int:
    """Print an answer, and others to the same question; returns the exit code.

    A seed is counted up. The others are alternatives in the history; the chat goes on from the
    last one.
    """
    answer, faults = report(chat, first.text, first.thinking, first.results), 0
    answer.answers, answer.earlier = [], earlier or UNSET
    asked, display = chat.sampling, first
    for number in range(1, output.answers + 1):
        if number > 1:
            chat.sampling = replace(asked, seed=_seed_of(asked.seed, number - 1))
            _print_number(number, world, output)
            with closing(chat.regenerate()) as events:
                display = _show(events, world, output)
        answer.answers.append(_one_answer(chat, display))
        if not output.json:
            _print_complete(chat, world, display, None, [], output)
        faults |= _report_fault(chat, display.text, world, output)
    chat.sampling = asked
    if output.json:
        print_json(world, answer, compact=True)
    return faults


def _seed_of(seed: int | None, index: int) -> int | None:
    """The seed of a further answer, counted as for the choices of an API request."""
    return None if seed is None else (seed + index) % 2**63


def _one_answer(chat: Chat, display: AnswerDisplay) -> OneAnswer:
    assert chat.finish is not None
    end = chat.finish
    return OneAnswer(display.text, display.thinking, end.reason, end.reply_tokens, end.seed)


def _print_number(number: int, world: World, output: Output) -> None:
    if output.answers > 1 and not output.json:
        line = f"--- answer {number} of {output.answers} ---"
        print(line if number == 1 else f"\n{line}", file=world.stdout, flush=True)


def _report_fault(chat: Chat, text: str, world: World, output: Output) -> int:
    """The exit code for the form of the answer: 1, with a note, if it is not as it was asked."""
    fault = fault_of(chat, text)
    if fault and not output.quiet:
        print(f"note: {fault}", file=world.stderr)
    return 1 if fault else 0


def _print_complete(
    chat: Chat,
    world: World,
    display: AnswerDisplay,
    code: str | None,
    earlier: list[OneAnswer],
    output: Output,
) -> None:
    """Print an answer that was not streamed: as JSON, its code, or its text."""
    if output.json:
        answer = report(chat, display.text, display.thinking, display.results)
        answer.code = code if output.extract else UNSET
        answer.value, answer.earlier = value_of(chat, display.text), earlier or UNSET
        return print_json(world, answer, compact=True)
    if output.extract and code is not None:
        printed = fit_for(world.stdout, code)
    elif not output.extract and not output.stream:
        printed = fit_for(world.stdout, display.text)
    else:
        return
    print(printed, file=world.stdout, flush=True)


def _note(chat: Chat, text: str, world: World) -> None:
    """Notes on stderr: messages that were left out, an empty answer, and its sources."""
    window = chat.window
    if window and window.dropped:
        print(
            f"note: {window.dropped} of {counted(len(window.ledger), 'message')} did not fit"
            f" the window of {counted(window.limit, 'token')} and"
            f" {'was' if window.dropped == 1 else 'were'} not sent",
            file=world.stderr,
        )
    if not text:
        print("note: the model gave an empty answer", file=world.stderr)
    print_sources(world, chat.sources.take(), world.columns, world.stderr)


def _extracted(chat: Chat, text: str) -> str | None:
    """What `--extract` prints: an answer with a structure is the value itself."""
    structure = chat.sampling.structure
    if structure is None:
        return first_code(text)
    return (None if structure.is_json else first_code(text)) or text


def first_code(text: str) -> str | None:
    """The first code block of an answer, as `--extract` prints it."""
    from llmchat.ui.code_blocks import code_blocks

    return next((block.text for block in code_blocks(text)), None)


def report(chat: Chat, text: str, thinking: str = "", results: Sequence[Result] = ()) -> Answer:
    """The answer for `--json`, with all that is known of how it came about."""
    finish, window = chat.finish, chat.window
    assert finish is not None and window is not None
    has_tools = bool(chat.tools and chat.tools.tools)
    return Answer(
        text=text,
        thinking=thinking or UNSET,
        model=chat.preset.name,
        adapter=", ".join(map(str, chat.preset.adapters)) or None,
        served=isinstance(unwrap(chat.engine), InBackground) or UNSET,
        finish_reason=finish.reason,
        usage=Usage.of(finish),
        timings=Timings.of(finish, chat.engine.load_s),
        window=SentWindow.of(window),
        seed=finish.seed,
        session=chat.session if chat.history.path else None,
        tool_calls=list(map(ToolUse.of, results)) if has_tools else UNSET,
        sources=list(map(CitedSource.of, chat.sources.take())) or UNSET,
    )


def _show(events: Iterable[Event], world: World, output: Output) -> AnswerDisplay:
    """Print an answer as it arrives, where it is to be streamed, and notices of tool calls.

    The model's thinking is not printed.
    """
    silent = output.quiet or output.json
    progress = PrefillProgress(world.stderr, world, shown=not silent)

    def print_notice(line: str) -> None:
        printing.print_note(world, line, world.columns, world.stderr)

    display = AnswerDisplay(
        progress,
        partial(choose_renderer, world, plain=output.plain) if output.streams else None,
        notice=(lambda line: None) if silent else print_notice,
    )
    with on_interrupt(progress.stopping):
        display.show(events)
    return display
