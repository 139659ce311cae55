"""What is said to a server: messages as OpenAI writes them, or the text of a prompt, with nothing in them that could pose as a special token."""

import re
from typing import Any

from llmchat.conversation import Message
from llmchat.prompt import WORD_JOINER, Prompt, plain_text

# What tokenizers read as special tokens. The server's vocabulary is not known here, so each of them is made harmless in what people wrote:
# <s> </s> <unk>, <|im_end|>, <start_of_turn>, <｜User｜>, [INST].
_SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:unk|pad|bos|eos|mask)>|</?(?:start|end)_of_\w{1,20}>|<｜[^｜<>]{1,40}｜>|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"
)


def disarmed(text: str) -> str:
    """The text with a word joiner in each spelt-out special token: a reader sees no difference, a tokenizer sees no token."""
    return _SPECIAL.sub(lambda match: match[0][0] + WORD_JOINER + match[0][1:], text)


def text_of(prompt: Prompt) -> str:
    """The prompt's text, what people wrote in it disarmed."""
    text, position = "", 0
    for start, end in sorted(prompt.quoted):
        text += prompt.text[position:start] + disarmed(prompt.text[start:end])
        position = end
    return text + prompt.text[position:]


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    return [_message(message) for message in prompt.messages]


def _message(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": disarmed(plain_text(message))}
    return sent | ({"tool_calls": list(message.calls)} if message.calls else {})
