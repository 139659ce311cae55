"""Whether an answer has the form that was asked for, and its value."""

import json
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from llmchat.chat import Chat
from llmchat.output.formatting import counted


def flag(name: str) -> str:
    """An option as the command line has it."""
    return "--" + name.replace("_", "-")


def fault_of(chat: Chat, text: str, option: Callable[[str], str] = flag) -> str:
    """Why the last answer is not a complete value, and the way out; empty if it is.

    option: how the front end writes the name of an option.
    """
    structure, finish = chat.sampling.structure, chat.finish
    if structure is None or finish is None or _is_whole(chat, text):
        return ""
    if finish.reason != "length":
        return (
            f"the answer is not a complete value of the {structure.kind}: a stop string ended it,"
            " or its server did not enforce it"
        )
    tokens, limit = finish.reply_tokens, chat.sampling.max_tokens
    if limit and tokens >= limit:
        way = f"a larger {option('max_tokens')} lets it end"
    else:
        larger = f"a larger {option('context')}, or a schema with limits, lets it end"
        way = f"the context window is full; {larger}"
    return f"the answer was cut off after {counted(tokens, 'token')} and is not complete; {way}"


def value_of(chat: Chat, text: str) -> Any:
    """The parsed answer if its structure is JSON and it is complete, else UNSET."""
    structure = chat.sampling.structure
    if structure is None or not structure.is_json or not _is_whole(chat, text):
        return UNSET
    try:
        return json.loads(text)
    except ValueError:
        return UNSET


def _is_whole(chat: Chat, text: str) -> bool:
    """Whether the answer is complete. What cannot be told counts so if it ended by itself."""
    from llmchat.engines.guide.conformance import conforms

    structure, finish = chat.sampling.structure, chat.finish
    assert structure and finish
    known = conforms(structure, text)
    return finish.reason != "length" if known is None else known
