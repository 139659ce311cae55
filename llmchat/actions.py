"""Actions of models that know no tools: a text trigger such as `SEARCH(<query>)` in an answer.

Generation stops behind the trigger, its tool runs, the result is written behind it, and the model
continues the same answer. Models with tools of their own need none of this.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

from msgspec import Struct

from llmchat.calls import Call
from llmchat.conversation import Conversation
from llmchat.engines import Chunk
from llmchat.errors import UsageError

Event = TypeVar("Event")

_ARGUMENT = re.compile(r"<([a-zA-Z_]\w*)>")
_RESULT = "{result}"


class Action(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A trigger and its tool.

    pattern: what the model writes; `<name>` is an argument within one line. tool: a name such as
    `web.search`. result: what is written behind the trigger, with `{result}` for the output.
    preamble: added to the system text; it teaches the action by examples.
    """

    pattern: str
    tool: str
    result: str = " → {result}\n"
    preamble: str = ""

    @property
    def tool_name(self) -> str:
        """The tool's name in a call: `web_search`."""
        return self.tool.replace(".", "_")

    def written(self, result: str) -> str:
        """The text behind the trigger. Blank lines end the answers of some formats."""
        return self.result.replace(_RESULT, re.sub(r"\n\s*\n+", "\n", result.strip()))


def check(actions: Sequence[Action]) -> None:
    """Raises UsageError for an action that cannot work."""
    for action in actions:
        pieces = _ARGUMENT.split(action.pattern)
        names = pieces[1::2]
        if len(set(names)) != len(names):
            raise UsageError(f"the action `{action.pattern}` has two arguments of one name")
        if not pieces[0].strip() or not pieces[-1]:
            raise UsageError(
                f"the action `{action.pattern}` needs a word before its arguments and a mark after"
                " them",
                "such as SEARCH(<query>)",
            )
        if "\n" in action.pattern:
            raise UsageError("the pattern of an action is one line")
        if _RESULT not in action.result:
            raise UsageError(f"the result of `{action.pattern}` does not contain {_RESULT}")


class Trigger(Struct, frozen=True):
    """An action that a model has written. end: where the trigger ends in the text."""

    action: Action
    arguments: dict[str, str]
    end: int

    def call(self, number: int, parameters: Mapping[str, Any]) -> Call:
        """The call of the tool. Arguments become numbers where its JSON Schema has numbers."""
        kinds = parameters.get("properties", {})
        arguments = {
            name: _typed(text, kinds.get(name, {}).get("type"))
            for name, text in self.arguments.items()
        }
        return Call(f"action_{number}", self.action.tool_name, arguments)


class Watcher:
    """Looks for the first trigger in a text that grows, line by line."""

    def __init__(self, actions: Sequence[Action]):
        self.found: Trigger | None = None
        self._patterns = [(action, _compiled(action.pattern)) for action in actions]
        self._line = ""

    def feed(self, piece: str) -> str:
        """The part of a piece that belongs to the answer: nothing behind a trigger does."""
        self._line += piece
        self.found = self._first()
        if self.found is not None:
            behind = len(self._line) - self.found.end
            return piece[: len(piece) - behind]
        self._line = self._line.rpartition("\n")[2]
        return piece

    def _first(self) -> Trigger | None:
        matches = (
            (match, action)
            for action, pattern in self._patterns
            if (match := pattern.search(self._line))
        )
        first = min(matches, key=lambda one: (one[0].end(), one[0].start()), default=None)
        if first is None:
            return None
        match, action = first
        arguments = {name: text.strip(" \"'") for name, text in match.groupdict().items()}
        return Trigger(action, arguments, match.end())


def watched(events: Generator[Event], watcher: Watcher) -> Iterator[Event]:
    """The events of an answer up to a trigger, where its generation is closed."""
    with closing(events):
        for event in events:
            if not isinstance(event, Chunk):
                yield event
                continue
            text = watcher.feed(event.text)
            if watcher.found is None:
                yield event
                continue
            if text:
                yield Chunk(text)  # type: ignore[misc]
            return


def taught(conversation: Conversation, actions: Sequence[Action]) -> Conversation:
    """The conversation with the actions' preambles at the end of its system text."""
    preambles = [action.preamble.strip() for action in actions]
    text = "\n\n".join(filter(None, (conversation.system, *preambles)))
    return conversation.instruct(text) if text != conversation.system else conversation


def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = _ARGUMENT.split(pattern)
    literals, names = pieces[::2], pieces[1::2]
    text = re.escape(literals[0])
    for name, literal in zip(names, literals[1:], strict=True):
        # Lazy and within a line: the first closing mark ends the argument, in linear time.
        text += f"(?P<{name}>[^\\n]{{1,500}}?){re.escape(literal)}"
    return re.compile(text)


def _typed(text: str, kind: Any) -> Any:
    try:
        return int(text) if kind == "integer" else float(text) if kind == "number" else text
    except ValueError:
        return text
