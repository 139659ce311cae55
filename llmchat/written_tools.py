"""Writes tools, calls and results as plain text, for prompt formats that have no place for them.

The syntax is that of Hermes, which most models with tools have seen:
https://github.com/NousResearch/Hermes-Function-Calling.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Message

# Marks that neither a message nor a result may contain: it could pose as a call or a result.
LABELS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
Disarm = Callable[[str], str]


def definitions(tools: Sequence[Mapping[str, Any]]) -> str:
    """The part of the system text that offers the tools and teaches the syntax of calls."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\n"
        "You can call these functions to answer the user. Their signatures, as JSON:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "To call a function, write a JSON object with its name and arguments between these tags,"
        " and nothing after them:\n"
        '<tool_call>\n{"name": "<function>", "arguments": {"<argument>": "<value>"}}\n'
        "</tool_call>\n"
        "The results come in the next message, between <tool_response> tags. If no function is"
        " needed, answer directly."
    )


def as_text(messages: Sequence[Message], definitions: str, disarm: Disarm) -> tuple[Message, ...]:
    """The messages with calls as part of an answer's text and results as messages of the user.

    definitions: added to the system text. disarm: applied to what people and tools wrote.
    """
    written = [_written(message, disarm) for message in messages]
    if definitions:
        system = written.pop(0).text if written[0].role == "system" else ""
        text = "\n\n".join(filter(None, (system, definitions)))
        written.insert(0, Message("system", text))
    return tuple(_joined(written))


def has_tools(messages: Sequence[Message]) -> bool:
    """Whether any message is a call or a result."""
    return any(message.calls or message.role == "tool" for message in messages)


def _written(message: Message, disarm: Disarm) -> Message:
    clean = replace(message, text=disarm(message.text), input=disarm(message.input))
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{clean.text}\n</tool_response>")
    if not message.calls:
        return clean
    blocks = [_call(call["function"], disarm) for call in message.calls]
    return replace(clean, text="\n".join(filter(None, (clean.text, *blocks))), calls=())


def _call(function: Mapping[str, Any], disarm: Disarm) -> str:
    record = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{disarm(json.dumps(record, ensure_ascii=False))}\n</tool_call>"


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Consecutive results as one message, and a result with the question that follows it."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role == "user":
            text = "\n".join(filter(None, (joined[-1].text, message.input, message.text)))
            joined[-1] = replace(joined[-1], text=text)
        else:
            joined.append(message)
    return joined
