"""The tools of a chat: what the model is offered, and calls that run with the user's permission."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.calls import Call, Choice, ToolRequest
from llmchat.errors import UsageError, did_you_mean
from llmchat.tools import Source, Tool
from llmchat.tools.material import framed
from llmchat.tools.permission import Permissions, matches
from llmchat.tools.running import run
from llmchat.tools.sources import Sources

MAX_ROUNDS = 8
TIMEOUT_S = 120.0
# Fractions of the window that definitions and a single result may take.
DEFINITIONS_FRACTION = 1 / 4
RESULT_FRACTION = 1 / 4
DESCRIBE = "describe_tool"

Count = Callable[[str], int]


class Result(Struct, frozen=True):
    """What became of a call.

    text: for the model, framed as material if others wrote it. whole: the output before it was
    cut, empty where nothing was cut. error:
    one line; empty where the tool did its work.
    """

    call: Call
    text: str
    allowed: bool = True
    error: str = ""
    seconds: float = 0.0
    sources: tuple[Source, ...] = ()
    whole: str = ""


def _unknown(box: "Toolbox", name: str) -> None:
    raise UsageError(f"there is no tool `{name}`")


class Toolbox:
    """Tools by name, which of them are on, and the permissions to run them.

    make: adds the tools that a name means, for `turn_on`. sources: those of all results, numbered,
    of a `ToolSettings`. max_rounds: how often an answer may call
    tools before it must come without one.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        permissions: Permissions,
        *,
        make: "Callable[[Toolbox, str], None]" = _unknown,
        max_rounds: int = MAX_ROUNDS,
        timeout_s: float = TIMEOUT_S,
        sources: Sources | None = None,
    ):
        self.sources = sources or Sources()
        self.permissions = permissions
        self.max_rounds = max_rounds
        self._make = make
        self._timeout_s = timeout_s
        self._tools: dict[str, Tool] = {}
        self._sources: list[Callable[[], Sequence[Tool]]] = []
        self._notes: list[Callable[[], list[str]]] = []
        self._off: set[str] = set()
        self._described: set[str] = set()
        self.add(tools)

    def add(self, tools: Iterable[Tool]) -> None:
        """Add tools; one that is there already is turned on. Raises UsageError for two tools of
        one name.
        """
        for tool in tools:
            self._check_group(tool)
            self._tools.setdefault(tool.name, tool)
            self._off.discard(tool.name)

    def _check_group(self, tool: Tool) -> None:
        """One name has one meaning, so that permission for `files` does not cover a server."""
        for known in self.tools:
            same_name = known.name == tool.name or known.group == tool.group
            if same_name and (known.group, known.origin) != (tool.group, tool.origin):
                raise UsageError(
                    f"`{tool.name}` of {tool.origin or tool.group} has the name of a tool of"
                    f" {known.origin or known.group}",
                    "give the server another name in the MCP file",
                )

    def add_source(
        self, source: Callable[[], Sequence[Tool]], take_notes: Callable[[], list[str]]
    ) -> None:
        """Add tools that can change during the chat, such as those of a server.

        take_notes: lines for the user since the last time.
        """
        for tool in source():
            self._check_group(tool)
        self._sources.append(source)
        self._notes.append(take_notes)

    def take_notes(self) -> list[str]:
        """Lines for the user since the last time: servers that ended, tools that changed."""
        return [line for take in self._notes for line in take()]

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, also those that are off."""
        changing = {tool.name: tool for source in self._sources for tool in source()}
        return tuple((changing | self._tools).values())

    @property
    def active(self) -> tuple[Tool, ...]:
        """The tools that the model is offered."""
        return tuple(tool for tool in self.tools if tool.name not in self._off)

    def is_on(self, tool: Tool) -> bool:
        return tool.name not in self._off

    def turn_on(self, name: str) -> None:
        """Offer a tool or a group. Raises UsageError for an unknown name."""
        known = {tool.name for tool in self.tools if matches(name, tool)}
        self._off -= known
        if not known:
            self._make(self, name)

    def turn_off(self, name: str) -> None:
        """Stop offering a tool or a group."""
        self._off |= {tool.name for tool in self.find(name)}

    def find(self, name: str) -> list[Tool]:
        """The tools that a name means. Raises UsageError if there are none."""
        found = [tool for tool in self.tools if matches(name, tool)]
        if not found:
            known = [*dict.fromkeys(each for one in self.tools for each in (one.group, one.name))]
            raise UsageError(f"there is no tool `{name}`", did_you_mean(name, known))
        return found

    def request(
        self,
        count: Count,
        limit: int,
        choice: Choice = "auto",
        without: Collection[str] = (),
    ) -> ToolRequest | None:
        """What the model is offered in a window of `limit` tokens; None where no tool is on.

        without: tools that the model reaches in another way.

        Where the definitions take too much, the prompt has names with a line each, and the model
        asks for a description with `describe_tool`.
        """
        offered = [tool for tool in self.active if tool.name not in without]
        tools = tuple(map(definition, offered))
        if not tools:
            return None
        if _tokens(tools, count) <= limit * DEFINITIONS_FRACTION:
            return ToolRequest(tools, choice)
        shown = tuple(map(self._briefly, offered))
        return ToolRequest((*tools, _DESCRIBE), choice, shown=(*shown, _DESCRIBE))

    def _briefly(self, tool: Tool) -> dict[str, Any]:
        if tool.name in self._described:
            return definition(tool)
        line = first_line(tool.description)
        return _function(tool.name, line, {"type": "object", "properties": {}})

    def run(self, call: Call, count: Count, limit: int) -> Result:
        """Run a call, if the user allows it. An error becomes the result.

        The text is cut to a fraction of the window of `limit` tokens. KeyboardInterrupt stops the
        tool and goes on.
        """
        if call.name == DESCRIBE:
            return self._describe(call)
        tool = self._active(call.name)
        if tool is None:
            return _failed(call, f"there is no tool `{call.name}`")
        reply = self.permissions.decide(call, tool)
        if reply.answer == "no":
            return _refused(call, reply.reason)
        done = run(tool, call.arguments, timeout_s=self._timeout_s)
        text = f"error: {done.error}" if done.error else done.text
        shown = cut(text, int(limit * RESULT_FRACTION), count)
        whole = text if shown != text else ""
        shown = framed(shown) if done.untrusted else shown
        for source in done.sources:
            self.sources.number(source)
        return Result(call, shown, True, done.error, done.seconds, done.sources, whole)

    def _active(self, name: str) -> Tool | None:
        return next((tool for tool in self.active if tool.name == name), None)

    def _describe(self, call: Call) -> Result:
        name = str(call.arguments.get("name", ""))
        tool = self._active(name)
        if tool is None:
            return _failed(call, f"there is no tool `{name}`")
        self._described.add(name)
        return Result(call, msgspec.json.encode(definition(tool)["function"]).decode())


def definition(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's API and chat templates define one."""
    return _function(tool.name, tool.description, tool.parameters)


def _function(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": dict(parameters)}
    return {"type": "function", "function": function}


_DESCRIBE = _function(
    DESCRIBE,
    "Get the description and the parameters of a tool before you call it.",
    {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
)


def first_line(text: str) -> str:
    """The first sentence of a description, at most 100 characters."""
    line = text.strip().split("\n", 1)[0].split(". ", 1)[0]
    return line if len(line) <= 100 else f"{line[:99]}…"


def cut(text: str, tokens: int, count: Count) -> str:
    """A text of at most about `tokens` tokens, with a notice of what was left out."""
    # No token is longer than this on average, so a longer text need not be counted whole.
    kept = text[: tokens * 8]
    while (used := count(kept)) > tokens:
        kept = kept[: max(1, int(len(kept) * tokens / used * 0.98))]
    if kept == text:
        return text
    left = len(text) - len(kept)
    return f"{kept}\n[{left:,} more characters were left out]"


def _tokens(definitions: Sequence[dict[str, Any]], count: Count) -> int:
    return count(msgspec.json.encode(definitions).decode())


def _failed(call: Call, error: str) -> Result:
    return Result(call, f"error: {error}", True, error)


def _refused(call: Call, reason: str) -> Result:
    """The model must not try again with other words: it is told whose decision it was."""
    why = f": {reason}" if reason else ""
    error = f"not allowed{why}"
    return Result(call, f"error: the user did not allow this call{why}", False, error)
