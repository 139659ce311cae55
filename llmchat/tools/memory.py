"""The tools `memory_search` and `memory_add`: what is remembered of the user.

Adding changes something, so each fact needs the user's permission.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from llmchat.errors import LlmchatError
from llmchat.memory.facts import LONGEST, Facts
from llmchat.tools import Output, Tool, ToolError, ToolSettings


def tools(settings: ToolSettings) -> list[Tool]:
    facts = Facts.of(settings.world)
    return [MemorySearch(facts), MemoryAdd(facts)]


class MemorySearch:
    group = "memory"
    name = "memory_search"
    origin = ""
    description = "Find facts about the user that were remembered in earlier chats."
    parameters = {
        "type": "object",
        "properties": {
            "words": {"type": "string", "description": "words of the fact; empty for the newest"}
        },
        "required": ["words"],
        "additionalProperties": False,
    }
    read_only = True

    def __init__(self, facts: Facts):
        self._facts = facts

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        with _as_tool_error():
            found = self._facts.search(arguments["words"])
        lines = [f"- {fact.text}" for fact in found]
        return Output("\n".join(lines) or "nothing about that is remembered")


class MemoryAdd:
    group = "memory"
    name = "memory_add"
    origin = ""
    description = (
        "Remember a lasting fact about the user for later chats, when the user asks for it."
    )
    parameters = {
        "type": "object",
        "properties": {
            "fact": {
                "type": "string",
                "description": "one sentence about the user",
                "minLength": 1,
                "maxLength": LONGEST,
            }
        },
        "required": ["fact"],
        "additionalProperties": False,
    }
    read_only = False

    def __init__(self, facts: Facts):
        self._facts = facts

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        with _as_tool_error():
            fact = self._facts.add(arguments["fact"])
        return Output(f"remembered: {fact.text}")


@contextmanager
def _as_tool_error() -> Iterator[None]:
    """Turn an error of the memory into one that the model and the user are told."""
    try:
        yield
    except LlmchatError as error:
        raise ToolError(error.message, error.hint) from error
