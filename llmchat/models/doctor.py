"""`llmchat doctor`: where a model's prompt format comes from, and whether its answers will end.

Reads the checkpoint's small files, not its weights; without them, the preset alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from llmchat.conversation import Message
from llmchat.engines.checkpoint_files import (
    chat_template,
    context_of,
    read_json,
    special_names,
    special_tokens,
)
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import LlmchatError, Mismatch, ModelNotFound
from llmchat.models import search_doctor
from llmchat.models.loading import tokenizer
from llmchat.models.locate import Model, locate
from llmchat.models.running import inspected, kind_lines, running
from llmchat.output.formatting import byte_count
from llmchat.presets import Preset, get_format
from llmchat.prompt import PromptFormat
from llmchat.settings import World

QUESTION, ANSWER = Message("user", "How are you?"), Message("assistant", "Fine, thanks.")
SAMPLE = (Message("system", "Be brief."), QUESTION, ANSWER, Message("user", "And your friends?"))


class Finding(Struct, frozen=True):
    """ok: as it must be; note: worth knowing; problem: answers will be wrong."""

    level: Literal["ok", "note", "problem"]
    """`ok`; `note`: worth knowing; `problem`: answers will be wrong."""
    subject: str
    """What was checked."""
    text: str
    """What was found."""


class Report(Struct, frozen=True):
    """What was found, and the sample conversation as the model is given it."""

    model: str
    """Name of the model."""
    findings: tuple[Finding, ...]
    """What was found."""
    preview: str
    """A short chat as the model is given it; empty if unknown."""

    @property
    def healthy(self) -> bool:
        return all(finding.level != "problem" for finding in self.findings)


def examine(preset: Preset, world: World) -> Report:
    """Check a pulled model; if it is not pulled, check its preset."""
    if preset.kind != "chat":
        found = tuple(Finding(*line) for line in search_doctor.examine(preset, world))
        return Report(preset.name, found, "")
    try:
        model = locate(preset, world)
    except ModelNotFound:
        unread = _note("files", "not pulled: tokenizer and config were not checked")
        preview = preset.format.render(SAMPLE).text if preset.format.is_written else ""
        return Report(preset.name, (unread, *_of_preset(preset)), preview)
    except Mismatch as error:
        problem = _problem("template", f"{error.message}; {error.hint}")
        return Report(preset.name, (problem, *_of_preset(preset)), "")
    findings = (*_of_preset(preset), *(_of_checkpoint(model, preset.format) if model.base else ()))
    findings += tuple(_of_weights(model, world))
    return Report(preset.name, findings, _preview(model.preset.format))


def _ok(subject: str, text: str) -> Finding:
    return Finding("ok", subject, text)


def _note(subject: str, text: str) -> Finding:
    return Finding("note", subject, text)


def _problem(subject: str, text: str) -> Finding:
    return Finding("problem", subject, text)


def _preview(form: PromptFormat) -> str:
    try:
        return form.render(SAMPLE).text
    except LlmchatError:
        return ""


def _of_preset(preset: Preset) -> Iterator[Finding]:
    form, context = preset.format, preset.context
    if form.is_written:
        source = form.source or "its author"
        yield _ok("template", f"the preset's format `{form.name}`, after {source}")
    if form.decision:
        yield _note("decision", form.decision)
    if form.name == "dialogue":
        yield _note(
            "base model",
            "yes: it continues text, so an example dialogue comes first, and the next label ends"
            " an answer",
        )
    if preset.unsupported:
        yield _problem("weights", f"cannot run here: {preset.unsupported}")
    if context.policy == "last-n":
        turns = "alone" if context.turns == 1 else f"with the last {context.turns - 1} turns"
        yield _note("context", f"each question is sent {turns}")


def _of_checkpoint(model: Model, own: PromptFormat) -> Iterator[Finding]:
    """own: the format as the preset has it."""
    assert model.base is not None
    folder, form = model.base.path, model.preset.format
    tokens = tokenizer(model)
    yield from _template(form, tokens, folder, own.is_written)
    yield from _stop_tokens(form, tokens)
    yield from _end_of_answers(form, tokens)
    yield from _end_of_prompt(form, tokens)
    yield from _opening_token(form, tokens)
    yield from _sizes(model.preset, folder)


def _of_weights(model: Model, world: World) -> Iterator[Finding]:
    """The kinds of numbers in the files, and how they will run."""
    way = running(model.preset, inspected(model.preset, model.base, world), world)
    for line in kind_lines(way.kinds):
        yield _ok("weights", line)
    if way.runs:
        memory = f", {byte_count(way.memory)} of memory" if way.memory else ""
        yield _ok("runs", f"{way.runs}{memory}")


def _template(
    form: PromptFormat, tokens: Tokenizer, folder: Path, is_written: bool
) -> Iterator[Finding]:
    """Where the format comes from, and whether the checkpoint's template gives the same text."""
    labels = form.parts.labels if form.parts else ()
    unknown = [label for label in labels if label.startswith("<|") and tokens.id_of(label) is None]
    if unknown:
        yield _problem(
            "labels", f"{', '.join(unknown)}: tokens of the format, unknown to this tokenizer"
        )
    if is_written:
        yield from _own_template(form, folder)
        return
    file = folder / "chat_template.jinja"
    name = file.name if file.exists() else "tokenizer_config.json"
    yield _ok("template", f"the chat template of the checkpoint ({name})")
    if form.labels:
        yield _note(
            "labels",
            f"{', '.join(form.labels)}: plain text to the tokenizer, made harmless in messages",
        )


def _own_template(form: PromptFormat, folder: Path) -> Iterator[Finding]:
    """Whether the checkpoint's own chat template writes the same as the preset's format."""
    own = chat_template(folder)
    if own is None:
        return
    theirs = get_format("template").with_template(
        own, special_names(folder), special_tokens(folder)
    )
    try:
        same = theirs.render(SAMPLE).text.strip() == form.render(SAMPLE).text.strip()
    except LlmchatError:
        same = False
    if same:
        yield _ok("own template", "the checkpoint's chat template writes the same")
    else:
        yield _note(
            "own template",
            "the checkpoint's chat template writes something else; `--format template` uses it",
        )


def _stop_tokens(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    """Which tokens and strings end an answer, and whether the tokens exist."""
    ids = sorted({*tokens.end_ids, *form.stop_ids})
    named = {number: tokens.name_of(number) for number in ids}
    known = [f"{number} {name}" for number, name in named.items() if name is not None]
    missing = [str(number) for number, name in named.items() if name is None]
    if known:
        yield _ok("end tokens", ", ".join(known))
    else:
        yield _problem("end tokens", "none exists: only a stop string ends an answer")
    if missing:
        yield _problem("end tokens", f"{', '.join(missing)}: not in this vocabulary")
    if form.stops:
        yield _ok("stop strings", ", ".join(map(repr, form.stops)))


def _end_of_answers(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    """Whether the mark that ended answers in training ends them here."""
    subject = "end of answers"
    try:
        record = form.render((QUESTION, ANSWER))
    except LlmchatError as error:
        yield _note(subject, error.message)
        return
    start, end = record.learn[-1]
    mark = record.text[start:end].partition(ANSWER.text)[2].strip()
    token = tokens.id_of(mark)
    if not mark:
        yield _note(
            subject,
            "the format writes no mark after an answer; the model's stop token or a stop string"
            " ends it",
        )
    elif token in tokens.stop_ids(record):
        yield _ok(subject, f"{mark} (token {token}) ends an answer, as in training")
    elif any(stop in mark for stop in form.stops):
        yield _ok(subject, f"the text {mark!r} ends an answer")
    else:
        yield _problem(
            subject,
            f"training ended answers with {mark!r}, which is not a stop token here, so answers"
            " would run on",
        )


def _end_of_prompt(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    """Whether a prompt's token ids begin the ids of the finished record, as in training."""
    try:
        prompt, record = form.render((QUESTION,)), form.render((QUESTION, ANSWER))
    except LlmchatError:
        return
    ids = tokens.encode(prompt)
    last = repr(prompt.text[-24:])
    if tokens.encode(record)[: len(ids)] == ids:
        yield _ok("end of the prompt", f"{last}, token for token where answers begin in training")
    else:
        yield _note(
            "end of the prompt",
            f"{last} shares a token with the start of an answer, so training splits them"
            " differently",
        )


def _opening_token(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    ids = tokens.encode(form.render((QUESTION,)))
    bos = tokens.id_of(tokens.names.get("bos_token", ""))
    if bos is None or bos != ids[0]:
        yield _ok("opening token", "none")
    elif ids[1] == bos:
        yield _problem("opening token", f"{tokens.name_of(bos)}, twice")
    else:
        yield _ok("opening token", f"{tokens.name_of(bos)}, once")


def _sizes(preset: Preset, folder: Path) -> Iterator[Finding]:
    trained, window = context_of(folder), preset.context.tokens
    if window > trained:
        yield _problem(
            "context",
            f"the preset's window is {window:,} tokens, but the model holds {trained:,}",
        )
    elif window and window < trained:
        yield _note(
            "context",
            f"the preset's window is {window:,} tokens; the model holds {trained:,}, and"
            " --context widens it",
        )
    found = (read_json(folder / "config.json").get("architectures") or [""])[0]
    if preset.architecture and found and found != preset.architecture:
        yield _note("architecture", f"{found}, but the preset names {preset.architecture}")


def lines(report: Report) -> Iterator[str]:
    """The report for people: one finding a line, then the preview."""
    signs = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    for finding in report.findings:
        yield f"{signs[finding.level]} {finding.subject:18} {finding.text}"
    if report.preview:
        yield f"\nA short chat, as {report.model} receives it:\n"
        yield report.preview
