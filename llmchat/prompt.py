"""From messages to the exact text a model is given. A format is data: written parts (our TOML files) or a chat template (the checkpoint's).

The same function renders for chat and for training: `Prompt.learn` marks what the model itself writes. Nothing here knows token ids;
a prompt says in words what the tokenizer must do (`bos`, `quoted`).
"""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat import chat_template
from llmchat.chat_template.quoting import Placeholders, Range, map_texts
from llmchat.conversation import Message
from llmchat.errors import Mismatch, UsageError

# Put after the first character of a label that a message contains: a reader sees no difference, the model sees no label.
WORD_JOINER = "\u2060"

Replacements = tuple[tuple[str, str], ...]


class Prompt(Struct, frozen=True):
    """Rendered messages. Ranges are character offsets into `text`.

    stops: strings that end the answer, beside the checkpoint's own end tokens; stop_ids: token ids that do
    learn: what the model writes (its answers and their end marks), the part that counts in training
    quoted: what people wrote; a special token spelt out in there is text, not a token
    bos: the tokenizer puts its opening token before the text (a template writes its own)
    unescapes: how to read what the model writes, see PromptFormat
    ids: the token ids themselves, from those who bring their own; then `text` only shows them
    """

    text: str
    messages: tuple[Message, ...]
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    learn: tuple[Range, ...] = ()
    quoted: tuple[Range, ...] = ()
    bos: bool = True
    unescapes: Replacements = ()
    ids: tuple[int, ...] = ()


class Parts(Struct, frozen=True, forbid_unknown_fields=True):
    """A written format. `{text}` stands for a message, `{input}` for the material that came with it, `{system}` for the system text.

    The prompt is: opening (or `system`, when there is a system text), examples, then for each turn user + cue + assistant + end +
    separator; it ends after the cue of the answer that is wanted. Where the system text belongs inside the first question,
    `user_with_system` writes both; where a format has no place for one, it goes before the first question.

    labels: what must not stand in a message as it is; tidy: replacements in messages, made again until nothing changes
    """

    user: str
    cue: str = ""
    assistant: str = "{text}"
    end: str = ""
    separator: str = ""
    opening: str = ""
    system: str = ""
    examples: str = ""
    opening_with_input: str = ""
    user_with_input: str = ""
    user_with_system: str = ""
    labels: tuple[str, ...] = ()
    tidy: Replacements = ()


class PromptFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to write a conversation down. Exactly one of `parts` and `template` is set once the checkpoint is known.

    decision: what was decided where the sources of the format disagree
    labels: marks of a template that the tokenizer reads as plain text, so that they must not stand in a message as they are
    escapes: replacements in all of the prompt, for models that were trained without line ends; unescapes: those in the answer
    stop_ids: token ids belong to one vocabulary, so they come from the preset, when its checkpoint is known
    thinking: the marks between which a model thinks aloud; what stands there is shown, and never sent again
    """

    name: str
    source: str = ""
    decision: str = ""
    notes: str = ""
    parts: Parts | None = None
    template: str | None = None
    template_tokens: dict[str, Any] = {}
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    escapes: Replacements = ()
    unescapes: Replacements = ()
    thinking: tuple[str, str] = ("<think>", "</think>")

    def with_template(
        self, template: str, tokens: dict[str, str], special: Collection[str] = ()
    ) -> "PromptFormat":
        """This format with the checkpoint's chat template; `tokens` are the names a template may use, such as bos_token.

        special: the tokenizer's special tokens; every other mark of the template is plain text to it, and becomes a label.
        """
        labels = tuple(sorted(chat_template.labels(template) - set(special)))
        return replace(self, template=template, template_tokens=tokens, labels=labels)

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt for these messages: open for an answer after a user message, a finished record after an answer."""
        messages = tuple(messages)
        if not messages or messages[-1].role == "system":
            raise UsageError("a prompt needs a user message")
        if self.parts:
            page = _write_parts(self.parts, messages, self.escapes)
            text, learn, quoted = page.text, tuple(page.learn), tuple(page.quoted)
        elif self.template is not None:
            text, learn, quoted = _write_template(self, messages)
        else:
            raise Mismatch(
                f"the format `{self.name}` needs a chat template, and this checkpoint has none",
                "name a format with --format; `llmchat presets --formats` lists them",
            )
        return Prompt(
            text,
            messages,
            self.stops,
            self.stop_ids,
            learn,
            quoted,
            self.parts is not None,
            self.unescapes,
        )

    def extend(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that lets the model go on with its own last, unfinished answer."""
        *before, answer = messages
        prompt = self.render(before)
        lead = self.parts.assistant.partition("{text}")[0] if self.parts else ""
        start = len(prompt.text) + len(lead)
        text = (
            prompt.text
            + lead
            + _substitute(
                disarm(answer.text, self.parts.labels if self.parts else self.labels), self.escapes
            )
        )
        return replace(
            prompt, text=text, messages=tuple(messages), quoted=(*prompt.quoted, (start, len(text)))
        )

    def fingerprint(self) -> str:
        """A short name of all that decides how a conversation is written."""
        return hashlib.sha256(
            repr((self.parts, self.template, self.stops, self.stop_ids, self.escapes)).encode()
        ).hexdigest()[:16]


class _Page:
    """Text under way, with the ranges that were marked."""

    def __init__(self, parts: Parts, escapes: Replacements) -> None:
        self.text = ""
        self.learn: list[Range] = []
        self.quoted: list[Range] = []
        self._parts = parts
        self._escapes = escapes

    def write(self, part: str, **slots: str) -> None:
        for piece in re.split(r"(\{text\}|\{input\}|\{system\})", part):
            if piece in ("{text}", "{input}", "{system}"):
                start = len(self.text)
                self.text += _substitute(
                    disarm(
                        _tidied(slots[piece[1:-1]].strip(), self._parts.tidy), self._parts.labels
                    ),
                    self._escapes,
                )
                self.quoted.append((start, len(self.text)))
            else:
                self.text += _substitute(piece, self._escapes)


def _substitute(text: str, replacements: Replacements) -> str:
    for old, new in replacements:
        text = text.replace(old, new)
    return text


def _tidied(text: str, replacements: Replacements) -> str:
    while (changed := _substitute(text, replacements)) != text:
        text = changed
    return text


def disarm(text: str, labels: Collection[str]) -> str:
    """Make every speaker label inside a message harmless, so that no message can pose as another speaker."""
    for label in labels:
        text = text.replace(label, label[0] + WORD_JOINER + label[1:])
    return text


def _write_parts(parts: Parts, messages: tuple[Message, ...], escapes: Replacements) -> _Page:
    page = _Page(parts, escapes)
    system, spoken = _split_system(messages)
    if any(message.role == "tool" or message.calls for message in spoken):
        raise UsageError("this prompt format has no place for tools")
    first = spoken[0]
    if system and not parts.system and not parts.user_with_system:
        spoken = (replace(first, text=f"{system}\n\n{first.text}"), *spoken[1:])
    if system and parts.system:
        page.write(parts.system, text=system)
    else:
        page.write(
            parts.opening_with_input if first.input and parts.opening_with_input else parts.opening
        )
    page.write(parts.examples)
    for index, message in enumerate(spoken):
        if message.role == "assistant":
            start = len(page.text)
            page.write(parts.assistant, text=message.text)
            page.write(parts.end)
            page.learn.append((start, len(page.text)))
            page.write(parts.separator)
        elif index == 0 and system and parts.user_with_system:
            page.write(parts.user_with_system + parts.cue, text=plain_text(message), system=system)
        elif message.input and parts.user_with_input:
            page.write(parts.user_with_input + parts.cue, text=message.text, input=message.input)
        else:
            page.write(parts.user + parts.cue, text=plain_text(message))
    return page


def _split_system(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    """The system text, and the turns: user and assistant by turns, starting with the user.

    Between an answer that calls functions and the next answer stand their results; only templates have a place for them.
    """
    system = messages[0].text if messages[0].role == "system" else ""
    spoken = messages[1:] if messages[0].role == "system" else messages
    expected = ("user", "assistant")
    turns = [
        message
        for index, message in enumerate(spoken)
        if message.role != "tool" and not (index and spoken[index - 1].role == "tool")
    ]
    for index, message in enumerate(turns):
        if message.role != expected[index % 2]:
            raise UsageError(
                f"message {index + 1} is from `{message.role}`; user and assistant must take turns, starting with the user"
            )
    return system, spoken


def plain_text(message: Message) -> str:
    """A message in one piece, the material before the request."""
    return (
        f"{message.input}\n\n{message.text}"
        if message.input and message.text
        else message.input or message.text
    )


def _write_template(
    form: PromptFormat, messages: tuple[Message, ...]
) -> tuple[str, tuple[Range, ...], tuple[Range, ...]]:
    system, spoken = _split_system(messages)
    form = _given(form, lambda text: disarm(text, form.labels))
    records = [_record(message, form) for message in spoken]
    if system:
        records = _with_system(form, disarm(system, form.labels), records)
    wants_answer = spoken[-1].role != "assistant"
    text = _run_template(form, records, wants_answer)
    quoted = _find_quoted(form, text, records, wants_answer)
    if quoted is None:
        # The template changes what it is given, so that nobody can tell where a message ends: no mark in a message is left whole.
        marks = chat_template.labels(form.template or "")
        records = [map_texts(lambda text: disarm(text, marks), record) for record in records]
        form = _given(form, lambda text: disarm(text, marks))
        text, quoted = _run_template(form, records, wants_answer), []
    learn: list[Range] = []
    if not wants_answer:
        for index, record in enumerate(records):
            if record["role"] == "assistant":
                learn.append(_written_by_model(form, records, index))
    return text, tuple(learn), tuple(quoted)


def _record(message: Message, form: PromptFormat) -> dict[str, Any]:
    record: dict[str, Any] = {
        "role": message.role,
        "content": disarm(plain_text(message), form.labels),
    }
    calls = map_texts(lambda text: disarm(text, form.labels), message.calls)
    return record | ({"tool_calls": calls} if calls else {})


def _given(form: PromptFormat, change: Callable[[str], str]) -> PromptFormat:
    """The format with every text changed that its template is given from outside: tools and such, not the checkpoint's own tokens."""
    tokens = {
        name: value if name.endswith("_token") else map_texts(change, value)
        for name, value in form.template_tokens.items()
    }
    return replace(form, template_tokens=tokens) if tokens != form.template_tokens else form


def _with_system(
    form: PromptFormat, system: str, records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Records with the system text as its own message, or, where the template refuses that role (Gemma 2), before the first request."""
    own = [{"role": "system", "content": system}, *records]
    try:
        _run_template(form, own, True)
        return own
    except Mismatch:
        return [{"role": "user", "content": f"{system}\n\n{records[0]['content']}"}, *records[1:]]


def _written_by_model(form: PromptFormat, records: list[dict[str, Any]], index: int) -> Range:
    """What the answer at `index` adds to the prompt that asked for it, without the white space a template puts after the end mark."""
    before = _run_template(form, records[:index], True)
    after = _run_template(form, records[: index + 1], False)
    if not after.startswith(before):
        raise Mismatch(
            f"the chat template of `{form.name}` writes an answer differently from the prompt that asks for it",
            "it cannot be used for training",
        )
    return len(before), len(after.rstrip()) if after[len(before) :].strip() else len(after)


def _find_quoted(
    form: PromptFormat, text: str, records: list[dict[str, Any]], wants_answer: bool
) -> list[Range] | None:
    """Where messages, tools and arguments stand in the text; None where the template changes what it is given."""
    places = Placeholders([record["content"] for record in records])
    hidden = [
        {**map_texts(places.of_text, record), "content": places.of_message(index)}
        for index, record in enumerate(records)
    ]
    return places.find(_run_template(_given(form, places.of_text), hidden, wants_answer), text)


def _run_template(form: PromptFormat, records: list[dict[str, Any]], wants_answer: bool) -> str:
    variables = {"messages": records, "add_generation_prompt": wants_answer, **form.template_tokens}
    return chat_template.run(form.template or "", variables, form.name)
