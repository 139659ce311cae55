"""Render messages to the exact text that a model is given.

A format is data: written parts (our TOML files) or a chat template (the checkpoint's). Chat and
training use the same function: `Prompt.learn` marks what the model writes. This module knows no
token ids; a prompt tells the tokenizer what to do (`bos`, `quoted`).
"""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat import chat_template
from llmchat.calls import ToolRequest
from llmchat.chat_template.quoting import Placeholders, Range, map_texts
from llmchat.conversation import Message
from llmchat.errors import Mismatch, UsageError

# Inserted after the first character of a label inside a message: a reader sees no difference, and
# the model sees no label.
WORD_JOINER = "\u2060"

_SLOT = re.compile(r"(\{text\}|\{input\}|\{system\})")

Replacements = tuple[tuple[str, str], ...]


class Prompt(Struct, frozen=True):
    """Rendered messages. Ranges are character offsets into `text`.

    stops: strings that end the answer, in addition to the checkpoint's end tokens. stop_ids: token
    ids that do.
    learn: what the model writes (its answers and their end marks), the part that training counts.
    quoted: what people wrote; a special token spelt in there is text, not a token.
    bos: the tokenizer puts its BOS token before the text (a template writes its own).
    unescapes: replacements in what the model writes, see PromptFormat.
    ids: token ids, if the caller provides them; then `text` only shows them.
    tools: what the model is offered, for engines that send messages instead of text.
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
    tools: ToolRequest | None = None


class Parts(Struct, frozen=True, forbid_unknown_fields=True):
    """A written format.

    `{text}` is replaced by a message, `{input}` by the material that came with it, `{system}` by
    the system text. A prompt is the opening (or `system`, if there is a system text), the examples,
    then for each turn user + cue + assistant + end + separator. It ends after the cue of the
    requested answer.

    user_with_system: a first question that includes the system text. A format with neither this
    nor `system` puts the system text before the first question.
    labels: strings that a message must not contain. tidy: replacements in messages, repeated until
    nothing changes.
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
    """One way to write a conversation as a prompt.

    When the checkpoint is known, exactly one of `parts` and `template` is set.
    decision: what was decided where the sources of the format disagree.
    labels: marks of a template that the tokenizer reads as plain text, so that a message must not
    contain them.
    escapes: replacements in the whole prompt, for models that were trained without line ends;
    unescapes: those in the answer.
    stop_ids: from the preset, because token ids belong to one vocabulary.
    thinking: the marks around a model's thinking, which is shown and never sent back.
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
        """This format with the checkpoint's chat template.

        tokens: variables of the template such as bos_token. special: the tokenizer's special
        tokens; every other mark of the template is plain text to it and becomes a label.
        """
        labels = tuple(sorted(chat_template.labels(template) - set(special)))
        return replace(self, template=template, template_tokens=tokens, labels=labels)

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt for these messages.

        After a user message it is open for an answer; after an answer it is a complete record.
        """
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
            stops=self.stops,
            stop_ids=self.stop_ids,
            learn=learn,
            quoted=quoted,
            bos=self.parts is not None,
            unescapes=self.unescapes,
        )

    def extend(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that lets the model continue its own last, unfinished answer."""
        *before, answer = messages
        prompt = self.render(before)
        lead = self.parts.assistant.partition("{text}")[0] if self.parts else ""
        labels = self.parts.labels if self.parts else self.labels
        start = len(prompt.text) + len(lead)
        text = prompt.text + lead + _substitute(disarm(answer.text, labels), self.escapes)
        quoted = (*prompt.quoted, (start, len(text)))
        return replace(prompt, text=text, messages=tuple(messages), quoted=quoted)

    def fingerprint(self) -> str:
        """A short hash of everything that decides how a conversation is written."""
        facts = (self.parts, self.template, self.stops, self.stop_ids, self.escapes)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


class _Page:
    """A prompt being written, with its ranges."""

    def __init__(self, parts: Parts, escapes: Replacements) -> None:
        self.text = ""
        self.learn: list[Range] = []
        self.quoted: list[Range] = []
        self._parts = parts
        self._escapes = escapes

    def write(self, part: str, **slots: str) -> None:
        """Write a part of the format. slots: what replaces `{text}` and the others."""
        for piece in _SLOT.split(part):
            if _SLOT.fullmatch(piece):
                start = len(self.text)
                self.text += self._message_text(slots[piece[1:-1]])
                self.quoted.append((start, len(self.text)))
            else:
                self.text += _substitute(piece, self._escapes)

    def _message_text(self, text: str) -> str:
        tidy = _tidy(text.strip(), self._parts.tidy)
        return _substitute(disarm(tidy, self._parts.labels), self._escapes)


def _substitute(text: str, replacements: Replacements) -> str:
    for old, new in replacements:
        text = text.replace(old, new)
    return text


def _tidy(text: str, replacements: Replacements) -> str:
    while (changed := _substitute(text, replacements)) != text:
        text = changed
    return text


def disarm(text: str, labels: Collection[str]) -> str:
    """Break every speaker label in a message, so that it cannot pose as another speaker."""
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
    _write_opening(page, parts, system, first)
    page.write(parts.examples)
    for index, message in enumerate(spoken):
        if message.role == "assistant":
            start = len(page.text)
            page.write(parts.assistant, text=message.text)
            page.write(parts.end)
            page.learn.append((start, len(page.text)))
            page.write(parts.separator)
        else:
            _write_question(page, parts, message, system if index == 0 else "")
    return page


def _write_opening(page: _Page, parts: Parts, system: str, first: Message) -> None:
    if system and parts.system:
        page.write(parts.system, text=system)
    elif first.input and parts.opening_with_input:
        page.write(parts.opening_with_input)
    else:
        page.write(parts.opening)


def _write_question(page: _Page, parts: Parts, message: Message, system: str) -> None:
    if system and parts.user_with_system:
        page.write(parts.user_with_system + parts.cue, text=plain_text(message), system=system)
    elif message.input and parts.user_with_input:
        page.write(parts.user_with_input + parts.cue, text=message.text, input=message.input)
    else:
        page.write(parts.user + parts.cue, text=plain_text(message))


def _split_system(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    """The system text, and the turns: user and assistant in alternation, starting with the user.

    Results of tools come between an answer that calls them and the next answer; only templates have
    a place for them.
    """
    system = messages[0].text if messages[0].role == "system" else ""
    spoken = messages[1:] if messages[0].role == "system" else messages
    turns = [
        message
        for index, message in enumerate(spoken)
        if message.role != "tool" and not (index and spoken[index - 1].role == "tool")
    ]
    for index, message in enumerate(turns):
        if message.role != ("user", "assistant")[index % 2]:
            raise UsageError(
                f"message {index + 1} is from `{message.role}`; user and assistant must take turns,"
                " starting with the user"
            )
    return system, spoken


def plain_text(message: Message) -> str:
    """A message as one text, the material before the request."""
    return "\n\n".join(filter(None, (message.input, message.text)))


def _write_template(
    form: PromptFormat, messages: tuple[Message, ...]
) -> tuple[str, tuple[Range, ...], tuple[Range, ...]]:
    """The text, what the model writes in it, and what people wrote."""
    system, spoken = _split_system(messages)
    form = _map_variables(form, lambda text: disarm(text, form.labels))
    records = [_record(message, form) for message in spoken]
    if system:
        records = _with_system(form, disarm(system, form.labels), records)
    wants_answer = spoken[-1].role != "assistant"
    text = _run_template(form, records, wants_answer)
    quoted = _find_quoted(form, text, records, wants_answer)
    if quoted is None:
        # The template rewrites what it is given, so the end of a message cannot be located: every
        # mark in a message is broken.
        marks = chat_template.labels(form.template or "")
        records = [map_texts(lambda text: disarm(text, marks), record) for record in records]
        form = _map_variables(form, lambda text: disarm(text, marks))
        text, quoted = _run_template(form, records, wants_answer), []
    learn = () if wants_answer else _answers(form, records)
    return text, learn, tuple(quoted)


def _record(message: Message, form: PromptFormat) -> dict[str, Any]:
    """A message as chat templates expect it."""
    record: dict[str, Any] = {
        "role": message.role,
        "content": disarm(plain_text(message), form.labels),
    }
    calls = map_texts(lambda text: disarm(text, form.labels), message.calls)
    if message.call_id:
        record["tool_call_id"] = message.call_id
    return record | ({"tool_calls": calls} if calls else {})


def _map_variables(form: PromptFormat, change: Callable[[str], str]) -> PromptFormat:
    """Change every text in the template's variables, except the checkpoint's own tokens."""
    tokens = {
        name: value if name.endswith("_token") else map_texts(change, value)
        for name, value in form.template_tokens.items()
    }
    return replace(form, template_tokens=tokens) if tokens != form.template_tokens else form


def _with_system(
    form: PromptFormat, system: str, records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Add the system text as a message of its own.

    If the template refuses that role (Gemma 2), the text goes before the first request.
    """
    separate = [{"role": "system", "content": system}, *records]
    try:
        _run_template(form, separate, True)
        return separate
    except Mismatch:
        first = {"role": "user", "content": f"{system}\n\n{records[0]['content']}"}
        return [first, *records[1:]]


def _answers(form: PromptFormat, records: list[dict[str, Any]]) -> tuple[Range, ...]:
    """The range of each answer with its end mark."""
    return tuple(
        _range_of_answer(form, records, index)
        for index, record in enumerate(records)
        if record["role"] == "assistant"
    )


def _range_of_answer(form: PromptFormat, records: list[dict[str, Any]], index: int) -> Range:
    """What the answer at `index` adds to its prompt, without white space after the end mark."""
    before = _run_template(form, records[:index], True)
    after = _run_template(form, records[: index + 1], False)
    if not after.startswith(before):
        raise Mismatch(
            f"the chat template of `{form.name}` writes an answer differently from the prompt that"
            " asks for it",
            "it cannot be used for training",
        )
    answer = after[len(before) :]
    return len(before), len(after.rstrip()) if answer.strip() else len(after)


def _find_quoted(
    form: PromptFormat, text: str, records: list[dict[str, Any]], wants_answer: bool
) -> list[Range] | None:
    """The ranges of messages, tools and arguments; None if the template rewrites them."""
    places = Placeholders([record["content"] for record in records])
    hidden = [
        {**map_texts(places.of_text, record), "content": places.of_message(index)}
        for index, record in enumerate(records)
    ]
    shown = _run_template(_map_variables(form, places.of_text), hidden, wants_answer)
    return places.find(shown, text)


def _run_template(form: PromptFormat, records: list[dict[str, Any]], wants_answer: bool) -> str:
    variables = {"messages": records, "add_generation_prompt": wants_answer, **form.template_tokens}
    return chat_template.run(form.template or "", variables, form.name)
