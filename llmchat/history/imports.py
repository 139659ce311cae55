"""Chats of other programs as messages: ChatGPT's export, OpenAI's messages, ShareGPT, Alpaca; as JSON or a line each.

Each record is known by its fields, never by the file's name. What is imported is named by a hash of its content, so that the same
chat is not taken twice. Every field is checked: a file with one that cannot be right is refused as a whole, with the record's number.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.history import import_fields

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
}
_KNOWN = "it takes ChatGPT's conversations.json, OpenAI messages, ShareGPT and Alpaca records, as JSON or JSON lines"


class Said(Struct, frozen=True):
    """A message with the moment it was said (0: not known) and whether it was cut short."""

    message: Message
    created: float = 0.0
    state: str = "complete"


class Imported(Struct, frozen=True):
    """A chat from elsewhere. id: of the session that llmchat itself exported; empty for other programs' chats."""

    messages: tuple[Said, ...]
    title: str = ""
    model: str = "imported"
    created: float = 0.0
    tags: tuple[str, ...] = ()
    id: str = ""

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
        except KeyError as error:
            raise UsageError(
                f"{name}: record {number} has no field {import_fields.shown(error.args[0])}", _KNOWN
            ) from error
        except (import_fields.Unusable, msgspec.ValidationError) as error:
            raise UsageError(
                f"{name}: record {number} cannot be read: {import_fields.cut(str(error))}", _KNOWN
            ) from error
        except (TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"{name}: record {number} is not in the form it seems to be in", _KNOWN
            ) from error
        if chat is None:
            raise UsageError(f"{name}: record {number} is not a chat in a known form", _KNOWN)
        if chat.messages:
            chats.append(chat)
    if not chats:
        raise UsageError(f"{name} holds no chat", _KNOWN)
    return chats


def _records(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Records with their numbers: of a JSON list, one JSON value, or JSON lines (then the number is the line's)."""
    try:
        value = _decode(text)
    except ValueError as whole:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise UsageError(f"{name} is not JSON: {whole}", _KNOWN) from whole
        for number, line in lines:
            try:
                yield number, _decode(line)
            except ValueError as error:
                raise UsageError(f"{name}: line {number} is not JSON: {error}", _KNOWN) from error
        return
    if isinstance(value, list) and not _is_messages(value):
        yield from enumerate(value, 1)
    else:
        yield 1, value


def _decode(text: str) -> Any:
    """Raises ValueError with what is wrong."""
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def _is_messages(value: list[Any]) -> bool:
    return bool(value) and all(
        isinstance(one, dict) and "role" in one and "content" in one for one in value
    )


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
        if role == "developer":
            role = "system"
        text = _text(one.get("content"))
        message = _message(
            role,
            text,
            one.get("input") or "",
            mark=one.get("mark") or "",
            covers=import_fields.count(one, "covers"),
            files=one.get("files") or (),
        )
        state = import_fields.choice(one, "state", ("complete", "cancelled"))
        if message.role != "tool" and (message.text or message.input):
            said.append(Said(message, import_fields.moment(one, "created"), state))
    title, model = (
        import_fields.text(record, "title"),
        import_fields.text(record, "model") or "imported",
    )
    tags = import_fields.texts(record, "tags")
    return Imported(
        tuple(said),
        title,
        model,
        import_fields.moment(record, "created"),
        tags,
        import_fields.text(record, "id"),
    )


def _message(role: Any, text: Any, input: Any = "", **more: Any) -> Message:
    return msgspec.convert({"role": role, "text": text, "input": input} | more, Message)


def _text(content: Any) -> str:
    """OpenAI's content: a text, or parts of which some are text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise import_fields.Unusable(
            f"`content` is neither a text nor a list of parts: {import_fields.shown(content)}"
        )
    texts = (
        part if isinstance(part, str) else part.get("text")
        for part in content
        if isinstance(part, str | dict)
    )
    return "\n".join(text if isinstance(text, str) else "" for text in texts)


def _from_chatgpt(record: dict[str, Any]) -> Imported:
    """The branch that was open last, from the root to `current_node`."""
    said: list[Said] = []
    for message in _branch(record["mapping"], record.get("current_node")):
        role = (message.get("author") or {}).get("role")
        text = _text((message.get("content") or {}).get("parts") or [])
        if role in ("user", "assistant", "system") and text.strip():
            said.append(Said(Message(role, text), import_fields.moment(message, "create_time")))
    return Imported(
        tuple(said),
        import_fields.text(record, "title"),
        "chatgpt",
        import_fields.moment(record, "create_time"),
    )


def _branch(nodes: dict[str, Any], name: Any) -> list[dict[str, Any]]:
    """The messages of a branch of ChatGPT's tree, from its first one to the node `name`, or to a leaf where none is named."""
    if name is None:
        name = next(
            (key for key, node in reversed(nodes.items()) if not node.get("children")), None
        )
    seen: dict[Any, dict[str, Any]] = {}
    while name is not None and name in nodes:
        if name in seen:
            raise import_fields.Unusable(
                f"the parents of node {import_fields.shown(name)} form a loop"
            )
        seen[name] = nodes[name].get("message") or {}
        name = nodes[name].get("parent")
    return list(seen.values())[::-1]


def _from_sharegpt(record: dict[str, Any]) -> Imported:
    said = []
    for one in record["conversations"]:
        speaker = import_fields.text(one, "from").lower()
        if one["value"]:
            said.append(Said(_message(_ROLES.get(speaker, speaker), one["value"])))
    return Imported(tuple(said), import_fields.text(record, "title"))


def _from_alpaca(record: dict[str, Any]) -> Imported:
    question = _message("user", record["instruction"], record.get("input") or "")
    return Imported((Said(question), Said(_message("assistant", record["output"]))))
