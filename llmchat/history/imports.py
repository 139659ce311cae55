"""Read chats of other programs: ChatGPT exports, OpenAI messages, ShareGPT, Alpaca; JSON or JSONL.

The fields of a record decide its format, never the name of its file. A hash of the content
identifies a chat, so that it is not imported twice. Every field is checked: one invalid value
refuses the whole file, with the number of the record.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.calls import Call
from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.history import import_fields

_ROLES = {"human": "user", "user": "user"} | dict.fromkeys(
    ("gpt", "chatgpt", "assistant", "bot"), "assistant"
)
_FORMATS = (
    "supported are ChatGPT's conversations.json, OpenAI messages, ShareGPT and Alpaca records, as"
    " JSON or JSON lines"
)


class ImportedMessage(Struct, frozen=True):
    """A message with the time it was written (0: unknown). state: `complete` or `cancelled`."""

    message: Message
    created: float = 0.0
    state: str = "complete"


class ImportedChat(Struct, frozen=True):
    """A chat from a file. id: of the session llmchat exported; empty for other programs' chats."""

    messages: tuple[ImportedMessage, ...]
    title: str = ""
    model: str = "imported"
    created: float = 0.0
    tags: tuple[str, ...] = ()
    id: str = ""

    @property
    def source(self) -> str:
        """A name for the content: the same for the same messages."""
        content = [(one.message, one.state) for one in self.messages]
        return "import:" + hashlib.sha256(msgspec.json.encode([self.title, content])).hexdigest()


def read(text: str, name: str) -> list[ImportedChat]:
    """Every chat in the text of a file. Raises UsageError naming the record that is invalid."""
    records = list(_records(text, name))
    chats = []
    for number, record in records:
        try:
            chat = _chat(record)
        except KeyError as error:
            raise UsageError(
                f"{name}: record {number} has no field {import_fields.quoted(error.args[0])}",
                _FORMATS,
            ) from error
        except (import_fields.Unusable, msgspec.ValidationError) as error:
            raise UsageError(
                f"{name}: record {number} cannot be read: {import_fields.one_line(str(error))}",
                _FORMATS,
            ) from error
        except (TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"{name}: record {number} is malformed", _FORMATS) from error
        if chat is None:
            raise UsageError(
                f"{name}: record {number} is not a chat in a supported format", _FORMATS
            )
        if chat.messages:
            chats.append(chat)
    if not chats:
        raise UsageError(f"{name} contains no chat", _FORMATS)
    return chats


def _records(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Numbered records of a JSON list, one JSON value, or JSON lines (numbered by line)."""
    try:
        value = _decode(text)
    except ValueError as whole:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise UsageError(f"{name} is not JSON: {whole}", _FORMATS) from whole
        for number, line in lines:
            try:
                yield number, _decode(line)
            except ValueError as error:
                raise UsageError(f"{name}: line {number} is not JSON: {error}", _FORMATS) from error
        return
    if isinstance(value, list) and not _is_messages(value):
        yield from enumerate(value, 1)
    else:
        yield 1, value


def _decode(text: str) -> Any:
    """A JSON value. Raises ValueError with the reason."""
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


def _chat(record: Any) -> ImportedChat | None:
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


def _from_messages(record: dict[str, Any]) -> ImportedChat:
    messages = map(_openai_message, record["messages"])
    return ImportedChat(
        tuple(one for one in messages if one is not None),
        title=import_fields.text(record, "title"),
        model=import_fields.text(record, "model") or "imported",
        created=import_fields.moment(record, "created"),
        tags=import_fields.texts(record, "tags"),
        id=import_fields.text(record, "id"),
    )


def _openai_message(one: dict[str, Any]) -> ImportedMessage | None:
    """None for a message without content, and for a tool result that names no call."""
    role = "summary" if one.get("name") == "summary" else one["role"]
    message = _message(
        "system" if role == "developer" else role,
        _text(one.get("content")),
        one.get("input") or "",
        mark=one.get("mark") or "",
        covers=import_fields.count(one, "covers"),
        files=one.get("files") or (),
        passages=one.get("passages") or (),
        calls=tuple(map(_call, one.get("tool_calls") or ())),
        call_id=import_fields.text(one, "tool_call_id"),
    )
    state = import_fields.choice(one, "state", ("complete", "cancelled"))
    if message.role == "tool":
        is_empty = not message.call_id
    else:
        is_empty = not (message.text or message.input or message.calls)
    if is_empty:
        return None
    return ImportedMessage(message, import_fields.moment(one, "created"), state)


def _call(value: Any) -> dict[str, Any]:
    """A call with its arguments as an object, as chat templates expect it."""
    function = value["function"]
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = msgspec.json.decode(arguments, type=dict[str, Any])
    return Call(import_fields.text(value, "id"), function["name"], arguments).as_openai()


def _message(role: Any, text: Any, input: Any = "", **more: Any) -> Message:
    return msgspec.convert({"role": role, "text": text, "input": input} | more, Message)


def _text(content: Any) -> str:
    """OpenAI's `content`: a text, or a list of parts of which some are text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise import_fields.Unusable(
            f"`content` is neither a text nor a list of parts: {import_fields.quoted(content)}"
        )
    texts = (
        part if isinstance(part, str) else part.get("text")
        for part in content
        if isinstance(part, str | dict)
    )
    return "\n".join(text if isinstance(text, str) else "" for text in texts)


def _from_chatgpt(record: dict[str, Any]) -> ImportedChat:
    """The branch that was open last: from the root to `current_node`."""
    messages: list[ImportedMessage] = []
    for message in _branch(record["mapping"], record.get("current_node")):
        role = (message.get("author") or {}).get("role")
        text = _text((message.get("content") or {}).get("parts") or [])
        if role in ("user", "assistant", "system") and text.strip():
            created = import_fields.moment(message, "create_time")
            messages.append(ImportedMessage(Message(role, text), created))
    title, created = (
        import_fields.text(record, "title"),
        import_fields.moment(record, "create_time"),
    )
    return ImportedChat(tuple(messages), title, "chatgpt", created)


def _branch(nodes: dict[str, Any], name: Any) -> list[dict[str, Any]]:
    """The messages of a branch of ChatGPT's tree, to the node `name` or, without one, to a leaf."""
    if name is None:
        name = next(
            (key for key, node in reversed(nodes.items()) if not node.get("children")), None
        )
    seen: dict[Any, dict[str, Any]] = {}
    while name is not None and name in nodes:
        if name in seen:
            raise import_fields.Unusable(
                f"the parents of node {import_fields.quoted(name)} form a loop"
            )
        seen[name] = nodes[name].get("message") or {}
        name = nodes[name].get("parent")
    return list(seen.values())[::-1]


def _from_sharegpt(record: dict[str, Any]) -> ImportedChat:
    messages = []
    for one in record["conversations"]:
        speaker = import_fields.text(one, "from").lower()
        if one["value"]:
            message = _message(_ROLES.get(speaker, speaker), one["value"])
            messages.append(ImportedMessage(message))
    return ImportedChat(tuple(messages), import_fields.text(record, "title"))


def _from_alpaca(record: dict[str, Any]) -> ImportedChat:
    question = _message("user", record["instruction"], record.get("input") or "")
    answer = _message("assistant", record["output"])
    return ImportedChat((ImportedMessage(question), ImportedMessage(answer)))
