"""From messages to the exact text a model is given. A format is data: written parts (our TOML files) or a chat template (the checkpoint's).

The same function renders for chat and for training: `Prompt.learn` marks what the model itself writes. Nothing here knows token ids;
a prompt says in words what the tokenizer must do (`bos`, `quoted`).
"""

import datetime
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.errors import Mismatch, UsageError

# Put after the first character of a label that a message contains: a reader sees no difference, the model sees no label.
WORD_JOINER = "\u2060"

Range = tuple[int, int]


class Prompt(Struct, frozen=True):
    """Rendered messages. Ranges are character offsets into `text`.

    stops: strings that end the answer, beside the checkpoint's own end tokens; stop_ids: token ids that do
    learn: what the model writes (its answers and their end marks), the part that counts in training
    quoted: what people wrote; a special token spelt out in there is text, not a token
    bos: the tokenizer puts its opening token before the text (a template writes its own)
    """

    text: str
    messages: tuple[Message, ...]
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    learn: tuple[Range, ...] = ()
    quoted: tuple[Range, ...] = ()
    bos: bool = True


class Parts(Struct, frozen=True, forbid_unknown_fields=True):
    """A written format. `{text}` stands for a message, `{input}` for the material that came with it.

    The prompt is: opening (or `system`, when there is a system text), examples, then for each turn user + cue + assistant + end +
    separator; it ends after the cue of the answer that is wanted.
    """

    user: str
    cue: str
    assistant: str = "{text}"
    end: str = ""
    separator: str = ""
    opening: str = ""
    system: str = ""
    examples: str = ""
    opening_with_input: str = ""
    user_with_input: str = ""
    labels: tuple[str, ...] = ()


class PromptFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to write a conversation down. Exactly one of `parts` and `template` is set once the checkpoint is known.

    thinking: the marks between which a model thinks aloud; what stands there is shown, and never sent again.
    """

    name: str
    source: str = ""
    notes: str = ""
    parts: Parts | None = None
    template: str | None = None
    template_tokens: dict[str, str] = {}
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    thinking: tuple[str, str] = ("<think>", "</think>")

    def with_template(self, template: str, tokens: dict[str, str]) -> "PromptFormat":
        """This format with the checkpoint's chat template; `tokens` are the names a template may use, such as bos_token."""
        return replace(self, template=template, template_tokens=tokens)

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt for these messages: open for an answer after a user message, a finished record after an answer."""
        messages = tuple(messages)
        if not messages or messages[-1].role == "system":
            raise UsageError("a prompt needs a user message")
        if self.parts:
            page = _write_parts(self.parts, messages)
            text, learn, quoted = page.text, tuple(page.learn), tuple(page.quoted)
        elif self.template is not None:
            text, learn, quoted = _write_template(self, messages)
        else:
            raise Mismatch(
                f"the format `{self.name}` needs a chat template, and this checkpoint has none",
                "name a format with --format; `llmchat presets --formats` lists them",
            )
        return Prompt(text, messages, self.stops, self.stop_ids, learn, quoted, bos=self.parts is not None)

    def extend(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that lets the model go on with its own last, unfinished answer."""
        *before, answer = messages
        prompt = self.render(before)
        lead = self.parts.assistant.partition("{text}")[0] if self.parts else ""
        start = len(prompt.text) + len(lead)
        text = prompt.text + lead + (disarm(answer.text, self.parts.labels) if self.parts else answer.text)
        return replace(prompt, text=text, messages=tuple(messages), quoted=(*prompt.quoted, (start, len(text))))

    def fingerprint(self) -> str:
        """A short name of all that decides how a conversation is written."""
        return hashlib.sha256(repr((self.parts, self.template, self.stops, self.stop_ids)).encode()).hexdigest()[:16]


class _Page:
    """Text under way, with the ranges that were marked."""

    def __init__(self) -> None:
        self.text = ""
        self.learn: list[Range] = []
        self.quoted: list[Range] = []

    def write(self, part: str, labels: Sequence[str] = (), **slots: str) -> None:
        for piece in re.split(r"(\{text\}|\{input\})", part):
            if piece in ("{text}", "{input}"):
                start = len(self.text)
                self.text += disarm(slots[piece[1:-1]], labels)
                self.quoted.append((start, len(self.text)))
            else:
                self.text += piece


def disarm(text: str, labels: Sequence[str]) -> str:
    """Make every speaker label inside a message harmless, so that no message can pose as another speaker."""
    for label in labels:
        text = text.replace(label, label[0] + WORD_JOINER + label[1:])
    return text


def _write_parts(parts: Parts, messages: tuple[Message, ...]) -> _Page:
    page = _Page()
    system, spoken = _split_system(messages)
    first = spoken[0]
    if system and not parts.system:
        spoken = (replace(first, text=f"{system}\n\n{first.text}"), *spoken[1:])
    if system and parts.system:
        page.write(parts.system, parts.labels, text=system.strip())
    else:
        page.write(parts.opening_with_input if first.input and parts.opening_with_input else parts.opening)
    page.write(parts.examples)
    for message in spoken:
        if message.role == "assistant":
            start = len(page.text)
            page.write(parts.assistant, parts.labels, text=message.text.strip())
            page.write(parts.end)
            page.learn.append((start, len(page.text)))
            page.write(parts.separator)
        elif message.input and parts.user_with_input:
            page.write(parts.user_with_input + parts.cue, parts.labels, text=message.text.strip(), input=message.input.strip())
        else:
            page.write(parts.user + parts.cue, parts.labels, text=plain_text(message).strip())
    return page


def _split_system(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    """The system text, and the turns: user and assistant by turns, starting with the user."""
    system = messages[0].text if messages[0].role == "system" else ""
    spoken = messages[1:] if messages[0].role == "system" else messages
    expected = ("user", "assistant")
    for index, message in enumerate(spoken):
        if message.role != expected[index % 2]:
            raise UsageError(f"message {index + 1} is from `{message.role}`; user and assistant must take turns, starting with the user")
    return system, spoken


def plain_text(message: Message) -> str:
    """A message in one piece, the material before the request."""
    return f"{message.input}\n\n{message.text}" if message.input and message.text else message.input or message.text


def _write_template(form: PromptFormat, messages: tuple[Message, ...]) -> tuple[str, tuple[Range, ...], tuple[Range, ...]]:
    system, spoken = _split_system(messages)
    records = [{"role": message.role, "content": plain_text(message)} for message in spoken]
    if system:
        records = _with_system(form, system, records)
    wants_answer = spoken[-1].role == "user"
    text = _run_template(form, records, wants_answer)
    learn: list[Range] = []
    if not wants_answer:
        for index, record in enumerate(records):
            if record["role"] == "assistant":
                learn.append(_written_by_model(form, records, index))
    return text, tuple(learn), tuple(_find_quoted(text, records))


def _with_system(form: PromptFormat, system: str, records: list[dict[str, str]]) -> list[dict[str, str]]:
    """Records with the system text as its own message, or, where the template refuses that role (Gemma 2), before the first request."""
    own = [{"role": "system", "content": system}, *records]
    try:
        _run_template(form, own, True)
        return own
    except Mismatch:
        return [{"role": "user", "content": f"{system}\n\n{records[0]['content']}"}, *records[1:]]


def _written_by_model(form: PromptFormat, records: list[dict[str, str]], index: int) -> Range:
    """What the answer at `index` adds to the prompt that asked for it, without the white space a template puts after the end mark."""
    before = _run_template(form, records[:index], True)
    after = _run_template(form, records[: index + 1], False)
    if not after.startswith(before):
        raise Mismatch(
            f"the chat template of `{form.name}` writes an answer differently from the prompt that asks for it",
            "it cannot be used for training",
        )
    return len(before), len(after.rstrip()) if after[len(before) :].strip() else len(after)


def _find_quoted(text: str, records: list[dict[str, str]]) -> list[Range]:
    """Where the messages stand in the text. Templates may strip them, so the stripped text is looked for."""
    ranges, position = [], 0
    for record in records:
        content = record["content"].strip()
        start = text.find(content, position) if content else -1
        if start >= 0:
            position = start + len(content)
            ranges.append((start, position))
    return ranges


def _run_template(form: PromptFormat, records: list[dict[str, str]], wants_answer: bool) -> str:
    import jinja2

    try:
        return str(_compile(form.template or "").render(messages=records, add_generation_prompt=wants_answer, **form.template_tokens))
    except jinja2.TemplateError as error:
        raise Mismatch(f"the chat template of `{form.name}` refuses this conversation: {error}") from error


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> Any:
    """A template in jinja2's sandbox, with the few names Hugging Face templates rely on."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    room.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    room.globals["raise_exception"] = refuse
    room.globals["strftime_now"] = lambda pattern: datetime.datetime.now().strftime(pattern)
    return room.from_string(template)
