"""Writes prompts for a server: messages in OpenAI's format, or the text of a prompt.

Nothing that people wrote can pass for a special token.
"""

import json
import re
from typing import Any

from llmchat.chat_template.quoting import map_texts
from llmchat.conversation import Message
from llmchat.prompt import WORD_JOINER, Prompt, plain_text

# Texts that tokenizers read as special tokens: <|im_end|>, <s> </s> <unk>, <start_of_turn>,
# <｜User｜>, [INST]. The server's vocabulary is unknown, so all of them are defused in messages.
_SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>"
    r"|</?s>|<(?:unk|pad|bos|eos|mask)>"
    r"|</?(?:start|end)_of_\w{1,20}>"
    r"|<｜[^｜<>]{1,40}｜>"
    r"|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
)


def defused(text: str) -> str:
    """The text with an invisible word joiner in each special token that it spells, which keeps a
    tokenizer from recognising it.
    """
    return _SPECIAL.sub(lambda match: match[0][0] + WORD_JOINER + match[0][1:], text)


def text_of(prompt: Prompt) -> str:
    """The text of a prompt, with special tokens defused in what people wrote."""
    text, position = "", 0
    for start, end in sorted(prompt.quoted):
        text += prompt.text[position:start] + defused(prompt.text[start:end])
        position = end
    return text + prompt.text[position:]


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    return [_message(message) for message in prompt.messages]


def _message(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": defused(plain_text(message))}
    if message.call_id:
        sent["tool_call_id"] = message.call_id
    return sent | ({"tool_calls": [*map(_call, message.calls)]} if message.calls else {})


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as JSON text."""
    function = call["function"]
    arguments = json.dumps(map_texts(defused, function["arguments"]), ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
