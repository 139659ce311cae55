"""What a model is really given: where its format comes from, whether its end tokens exist, whether prompt and training text agree.

Everything is found in the checkpoint's small files; no weights are read. Without them, what the preset alone can tell is told.
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
from llmchat.models.loading import tokenizer
from llmchat.models.locate import Model, locate
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
    """Look at a model that is pulled, or at its preset alone where it is not."""
    try:
        model = locate(preset, world)
    except ModelNotFound:
        found = (
            Finding("note", "files", "not pulled: the tokenizer and the config were not looked at"),
            *_of_preset(preset),
        )
        return Report(
            preset.name, found, preset.format.render(SAMPLE).text if preset.format.parts else ""
        )
    except Mismatch as error:
        return Report(
            preset.name,
            (Finding("problem", "template", f"{error.message}; {error.hint}"), *_of_preset(preset)),
            "",
        )
    found = (*_of_preset(preset), *(_of_checkpoint(model) if model.base else ()))
    return Report(preset.name, found, _preview(model.preset.format))


def _preview(form: PromptFormat) -> str:
    try:
        return form.render(SAMPLE).text
    except LlmchatError:
        return ""


def _of_preset(preset: Preset) -> Iterator[Finding]:
    form = preset.format
    if form.parts:
        yield Finding(
            "ok",
            "template",
            f"the format `{form.name}` of the preset, after {form.source or 'its author'}",
        )
    if form.decision:
        yield Finding("note", "decision", form.decision)
    if form.name == "dialogue":
        yield Finding(
            "note",
            "base model",
            "yes: it continues text, so an example dialogue comes first and the next label ends an answer",
        )
    if preset.unsupported:
        yield Finding("problem", "weights", f"cannot run here: {preset.unsupported}")
    if preset.context.policy == "last-n":
        turns = (
            "alone"
            if preset.context.turns == 1
            else f"with the last {preset.context.turns - 1} turns"
        )
        yield Finding("note", "context", f"each question is sent {turns}")


def _of_checkpoint(model: Model) -> Iterator[Finding]:
    assert model.base is not None
    folder, form = model.base.path, model.preset.format
    tokens = tokenizer(model)
    yield from _template(form, tokens, folder)
    yield from _ends(form, tokens, folder)
    yield from _borders(form, tokens)
    yield from _opening(form, tokens)
    yield from _sizes(model.preset, tokens, folder)


def _template(form: PromptFormat, tokens: Tokenizer, folder: Path) -> Iterator[Finding]:
    """Where the text comes from, and whether the checkpoint's own template would write it otherwise."""
    own = chat_template(folder)
    strange = [
        label
        for label in (form.parts.labels if form.parts else ())
        if label.startswith("<|") and tokens.id_of(label) is None
    ]
    if strange:
        yield Finding(
            "problem",
            "labels",
            f"{', '.join(strange)}: tokens of the format that this tokenizer does not know",
        )
    if not form.parts:
        place = (
            "chat_template.jinja"
            if (folder / "chat_template.jinja").exists()
            else "tokenizer_config.json"
        )
        yield Finding("ok", "template", f"the chat template of the checkpoint ({place})")
        if form.labels:
            yield Finding(
                "note",
                "labels",
                f"{', '.join(form.labels)}: plain text to the tokenizer, made harmless in messages",
            )
        return
    if own is None:
        return
    theirs = get_format("template").with_template(
        own, special_names(folder), special_tokens(folder)
    )
    try:
        same = theirs.render(SAMPLE).text.strip() == form.render(SAMPLE).text.strip()
    except LlmchatError:
        same = False
    yield (
        Finding("ok", "own template", "the checkpoint's chat template writes the same")
        if same
        else Finding(
            "note",
            "own template",
            "the checkpoint brings a chat template that writes it otherwise; `--format template` uses that",
        )
    )


def _ends(form: PromptFormat, tokens: Tokenizer, folder: Path) -> Iterator[Finding]:
    """Which tokens end an answer, and whether what the format writes behind an answer is one of them."""
    known = {number: tokens.name_of(number) for number in sorted({*tokens.end_ids, *form.stop_ids})}
    missing = [str(number) for number, name in known.items() if name is None]
    told = ", ".join(f"{number} {name}" for number, name in known.items() if name is not None)
    yield (
        Finding("ok", "end tokens", told)
        if told
        else Finding("problem", "end tokens", "none exists: only a stop string ends an answer")
    )
    if missing:
        yield Finding(
            "problem",
            "end tokens",
            f"{', '.join(missing)} named as an end, but not in this vocabulary",
        )
    if form.stops:
        yield Finding("ok", "stop strings", ", ".join(map(repr, form.stops)))
    try:
        record = form.render((QUESTION, ANSWER))
    except LlmchatError as error:
        yield Finding("note", "end of answers", error.message)
        return
    start, end = record.learn[-1]
    mark = record.text[start:end].partition(ANSWER.text)[2].strip()
    if not mark:
        yield Finding(
            "note",
            "end of answers",
            "the format writes no mark behind an answer; the model's own end token or a stop string ends it",
        )
    elif tokens.id_of(mark) in tokens.stop_ids(record):
        yield Finding(
            "ok",
            "end of answers",
            f"{mark} (token {tokens.id_of(mark)}) ends an answer, as it did in training",
        )
    elif any(stop in mark for stop in form.stops):
        yield Finding("ok", "end of answers", f"the text {mark!r} ends an answer")
    else:
        yield Finding(
            "problem",
            "end of answers",
            f"training ended answers with {mark!r}, which ends nothing here: answers will run on",
        )


def _borders(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    """The token ids of a prompt must be the start of those of the finished record; else the model sees what training never showed it."""
    try:
        prompt, record = form.render((QUESTION,)), form.render((QUESTION, ANSWER))
    except LlmchatError:
        return
    ids = tokens.encode(prompt)
    last = repr(prompt.text[-24:])
    if tokens.encode(record)[: len(ids)] == ids:
        yield Finding(
            "ok",
            "end of the prompt",
            f"{last}, token for token the place where answers begin in training",
        )
    else:
        yield Finding(
            "note",
            "end of the prompt",
            f"{last} shares a token with the start of an answer, so the two are cut differently in training",
        )


def _opening(form: PromptFormat, tokens: Tokenizer) -> Iterator[Finding]:
    ids = tokens.encode(form.render((QUESTION,)))
    bos = tokens.id_of(tokens.names.get("bos_token", ""))
    if bos is None or bos != ids[0]:
        yield Finding("ok", "opening token", "none")
    elif ids[1] == bos:
        yield Finding("problem", "opening token", f"{tokens.name_of(bos)} stands there twice")
    else:
        yield Finding("ok", "opening token", f"{tokens.name_of(bos)}, once")


def _sizes(preset: Preset, tokens: Tokenizer, folder: Path) -> Iterator[Finding]:
    made_for, window = context_of(folder), preset.context.tokens
    if window > made_for:
        yield Finding(
            "problem",
            "context",
            f"the preset's window is {window:,} tokens, the model holds {made_for:,}",
        )
    elif window and window < made_for:
        yield Finding(
            "note",
            "context",
            f"the preset's window is {window:,} tokens; the model holds {made_for:,}, and --context widens it",
        )
    found = (read_json(folder / "config.json").get("architectures") or [""])[0]
    if preset.architecture and found and found != preset.architecture:
        yield Finding("note", "architecture", f"{found}; the preset says {preset.architecture}")


def lines(report: Report) -> Iterator[str]:
    """The report for people: a finding a line, then the preview."""
    signs = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    for finding in report.findings:
        yield f"{signs[finding.level]} {finding.subject:18} {finding.text}"
    if report.preview:
        yield f"\nA short chat, as {report.model} is given it:\n"
        yield report.preview
