"""Converts the messages of a request into a conversation, and refuses orders that make none."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Conversation, Message, material
from llmchat.memory.readers import Document
from llmchat.server.api import ChatMessage, ContentPart, ToolCall
from llmchat.server.compatibility import check_nesting
from llmchat.server.errors import BadRequest

_SYSTEM_ROLES = ("system", "developer")
# The roles that may follow each role.
_NEXT_ROLES = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool", "user"),
}


def to_conversation(
    messages: Sequence[ChatMessage], files: Mapping[str, Document] | None = None
) -> Conversation:
    """Join system messages, and consecutive messages of one role.

    files: by id; their texts become material of the messages that have them.

    If there are only system messages, they become the question; an answer without a question
    before it gets an empty one. Raises BadRequest if the order of roles is invalid.
    """
    system_texts = [
        _text(message, index)
        for index, message in enumerate(messages)
        if message.role in _SYSTEM_ROLES
    ]
    system = "\n\n".join(filter(None, system_texts))
    turns: list[Message] = []
    for index, turn in _joined(messages, files or {}):
        previous = turns[-1].role if turns else ""
        if turn.role == "assistant" and not previous:
            turns.append(Message("user", ""))
        elif turn.role not in _NEXT_ROLES[previous]:
            raise _wrong_order(index, turn.role, previous)
        if turn.role == "user" and previous == "tool":
            turns[-1] = _with_remark(turns[-1], turn)
        else:
            turns.append(turn)
    if not turns and system:
        return Conversation((Message("user", system),))
    if not turns:
        raise BadRequest("`messages` contains no message from `user`", param="messages")
    if turns[-1].calls:
        raise BadRequest("the result of the last function call is missing", param="messages")
    return Conversation(((Message("system", system),) if system else ()) + tuple(turns))


def _with_remark(result: Message, remark: Message) -> Message:
    """What a user writes before the model read the results joins the last one: as a message of its
    own it would begin a turn, and one without its answer would be left out of the window."""
    text = "\n\n".join(filter(None, (result.text, remark.input, remark.text)))
    return replace(result, text=text)


def _wrong_order(index: int, role: str, previous: str) -> BadRequest:
    where = f"after one from `{previous}`" if previous else "at the start"
    message = f"message {index + 1} is from `{role}`, which is not allowed {where}"
    return BadRequest(message, param=f"messages.{index}.role")


def file_ids(messages: Sequence[ChatMessage]) -> Iterator[tuple[str, ...]]:
    """The ids of the files of each message. Raises BadRequest."""
    for index, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        found = tuple(_file_id(one, index) for one in parts if one.type == "file")
        if found and message.role != "user":
            param = f"messages.{index}.content"
            raise BadRequest("only messages from `user` can have files", param=param)
        yield found


def _file_id(part: ContentPart, index: int) -> str:
    if part.file is None or not part.file.file_id:
        raise BadRequest(
            "a part of type `file` takes a `file_id`; POST /api/files/{chat} adds a file",
            param=f"messages.{index}.content",
        )
    return part.file.file_id


def _joined(
    messages: Sequence[ChatMessage], files: Mapping[str, Document]
) -> Iterator[tuple[int, Message]]:
    """All messages except system ones, each with its index. Consecutive messages of one role are
    joined, except function calls and their results."""
    turns = [
        (index, _with_files(_message(message, index), [files[id] for id in ids]))
        for index, (message, ids) in enumerate(zip(messages, file_ids(messages), strict=True))
        if message.role not in _SYSTEM_ROLES
    ]

    def group_key(numbered: tuple[int, tuple[int, Message]]) -> str:
        number, (_, turn) = numbered
        return str(number) if turn.role == "tool" or turn.calls else turn.role

    for _, group in groupby(enumerate(turns), key=group_key):
        same = [turn for _, turn in group]
        index, first = same[0]
        yield index, _one(same) if len(same) > 1 else first


def _one(turns: Sequence[tuple[int, Message]]) -> Message:
    """Several messages of one role as one."""
    text = "\n\n".join(filter(None, (turn.text for _, turn in turns)))
    input, files = material([one for _, turn in turns for one in turn.materials if one[1]])
    return replace(turns[0][1], text=text, input=input, files=files)


def _with_files(message: Message, files: Sequence[Document]) -> Message:
    if not files:
        return message
    input, parts = material([(one.source, f"{one.source}:\n{one.text.strip()}") for one in files])
    return replace(message, input=input, files=parts)


def _message(message: ChatMessage, index: int) -> Message:
    param = f"messages.{index}.tool_calls"
    calls = tuple(_call(call, param) for call in message.tool_calls or ())
    if calls and message.role != "assistant":
        raise BadRequest("only messages from `assistant` can have `tool_calls`", param=param)
    text, call_id = _text(message, index), message.tool_call_id or ""
    return Message(message.role, text, calls=calls, call_id=call_id)  # type: ignore[arg-type]


def _call(call: ToolCall, param: str) -> dict[str, Any]:
    name = call.function.name
    try:
        arguments = json.loads(call.function.arguments or "{}")
        check_nesting(arguments)
        # Escapes in JSON can spell lone surrogates, which no template can write.
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the arguments of `{name}` are not valid JSON", param=param) from error
    return {"type": "function", "id": call.id, "function": {"name": name, "arguments": arguments}}


def _text(message: ChatMessage, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    return "".join(
        _text_of(part, f"messages.{index}.content.{number}.type")
        for number, part in enumerate(message.content)
    )


def _text_of(part: ContentPart, param: str) -> str:
    if part.type == "file":
        return ""
    texts = {"text": part.text, "refusal": part.refusal}
    if (text := texts.get(part.type)) is not None:
        return text
    kind = part.type[:40]
    if kind in texts:
        raise BadRequest(f"a part of type `{kind}` has no text", param=param)
    raise BadRequest(f"`{kind}` parts are not supported; this server only reads text", param=param)
