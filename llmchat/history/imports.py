"""Chats of other programs as messages: ChatGPT's export, OpenAI's messages, ShareGPT, Alpaca; as JSON or a line each.

Each record is known by its fields, never by the file's name. What is imported is named by a hash of its content, so that the same
chat is not taken twice.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.conversation import Message
from llmchat.errors import UsageError

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bot": "assistant"}
_KNOWN = "it takes ChatGPT's conversations.json, OpenAI messages, ShareGPT and Alpaca records, as JSON or JSON lines"


class Said(Struct, frozen=True):
    """A message with the moment it was said (0: not known) and whether it was cut short."""

    message: Message
    created: float = 0.0
    state: str = "complete"


class Imported(Struct, frozen=True):
    """A chat from elsewhere."""

    messages: tuple[Said, ...]
    title: str = ""
    model: str = "imported"
    created: float = 0.0
    tags: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The same for the same content."""
        said = [(one.message, one.state) for one in self.messages]
        return "import:" + hashlib.sha256(msgspec.json.encode([self.title, said])).hexdigest()


def read(text: str, name: str) -> list[Imported]:
    """Every chat in a file's text. Raises UsageError with the record that cannot be read; nothing is imported then."""
    records = list(_records(text, name))
    chats = []
    for number, record in records:
        try:
            chat = _chat(record)
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
            raise UsageError(f"{name}: record {number} cannot be read: {type(error).__name__} {error}", _KNOWN) from error
        if chat is None:
            raise UsageError(f"{name}: record {number} is no chat of a known form", _KNOWN)
        if chat.messages:
            chats.append(chat)
    if not chats:
        raise UsageError(f"{name} holds no chat", _KNOWN)
    return chats


def _records(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Records with their numbers: of a JSON list, one JSON value, or JSON lines (then the number is the line's)."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as whole:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise UsageError(f"{name} is not JSON: {whole}", _KNOWN) from whole
        for number, line in lines:
            try:
                yield number, msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise UsageError(f"{name}: line {number} is not JSON: {error}", _KNOWN) from error
        return
    if isinstance(value, list) and not _is_messages(value):
        yield from enumerate(value, 1)
    else:
        yield 1, value


def _is_messages(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, dict) and "role" in one and "content" in one for one in value)


def _chat(record: Any) -> Imported | None:
    if isinstance(record, list):
        return _from_messages({"messages": record}) if _is_messages(record) else None
    if not isinstance(record, dict):
        return None
    for key, reader in (
        ("mapping", _from_chatgpt),
        ("messages", _from_messages),
        ("conversations", _from_sharegpt),
        ("instruction", _from_alpaca),
    ):
        if key in record:
            return reader(record)
    return None


def _from_messages(record: dict[str, Any]) -> Imported:
    said = []
    for one in record["messages"]:
        role = "summary" if one.get("name") == "summary" else one["role"]
        if role in ("developer",):
            role = "system"
        fields = {"role": role, "text": _text(one["content"]), "input": one.get("input", ""), "mark": one.get("mark", "")}
        message = msgspec.convert(fields | {"covers": one.get("covers", 0)}, Message)
        if message.role != "tool" and (message.text or message.input):
            said.append(Said(message, float(one.get("created") or 0), one.get("state", "complete")))
    about = (str(record.get("title") or ""), str(record.get("model") or "imported"), float(record.get("created") or 0))
    return Imported(tuple(said), *about, tuple(map(str, record.get("tags") or ())))


def _text(content: Any) -> str:
    """OpenAI's content: a text, or parts of which some are text."""
    if isinstance(content, list):
        return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content if isinstance(part, str | dict))
    return str(content or "")


def _from_chatgpt(record: dict[str, Any]) -> Imported:
    """The branch that was open last, from the root to `current_node`."""
    nodes, name = record["mapping"], record.get("current_node")
    if name is None:
        name = next((key for key, node in reversed(nodes.items()) if not node.get("children")), None)
    said: list[Said] = []
    while name is not None and name in nodes:
        message = nodes[name].get("message") or {}
        role = (message.get("author") or {}).get("role")
        text = _text((message.get("content") or {}).get("parts") or [])
        if role in ("user", "assistant", "system") and text.strip():
            said.append(Said(Message(role, text), float(message.get("create_time") or 0)))
        name = nodes[name].get("parent")
    return Imported(tuple(reversed(said)), str(record.get("title") or ""), "chatgpt", float(record.get("create_time") or 0))


def _from_sharegpt(record: dict[str, Any]) -> Imported:
    said = []
    for one in record["conversations"]:
        role = _ROLES.get(one["from"].lower(), one["from"].lower())
        if one["value"]:
            said.append(Said(msgspec.convert({"role": role, "text": one["value"]}, Message)))
    return Imported(tuple(said), str(record.get("title") or ""))


def _from_alpaca(record: dict[str, Any]) -> Imported:
    question = msgspec.convert({"role": "user", "text": record["instruction"], "input": record.get("input") or ""}, Message)
    return Imported((Said(question), Said(msgspec.convert({"role": "assistant", "text": record["output"]}, Message))))
