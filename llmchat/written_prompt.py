"""Writes a conversation with a written format: parts of text with slots for the messages."""

import re
from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.errors import UsageError

Range = tuple[int, int]

# Inserted after the first character of a label inside a message: a reader sees no difference, and
# the model sees no label.
WORD_JOINER = "\u2060"

_SLOT = re.compile(r"(\{text\}|\{input\}|\{system\})")

Replacements = tuple[tuple[str, str], ...]


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
                self.text += substitute(piece, self._escapes)

    def _message_text(self, text: str) -> str:
        tidy = _tidy(text.strip(), self._parts.tidy)
        return substitute(disarm(tidy, self._parts.labels), self._escapes)


def substitute(text: str, replacements: Replacements) -> str:
    for old, new in replacements:
        text = text.replace(old, new)
    return text


def _tidy(text: str, replacements: Replacements) -> str:
    while (changed := substitute(text, replacements)) != text:
        text = changed
    return text


def disarm(text: str, labels: Collection[str]) -> str:
    """Break every speaker label in a message, so that it cannot pose as another speaker."""
    for label in labels:
        text = text.replace(label, label[0] + WORD_JOINER + label[1:])
    return text


def write_parts(parts: Parts, messages: tuple[Message, ...], escapes: Replacements) -> _Page:
    page = _Page(parts, escapes)
    system, spoken = split_system(messages)
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


def split_system(messages: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
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
