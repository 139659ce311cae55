"""The user's permission: which calls may run without a question, and what the user answered.

A name allows a tool or a whole group. A permanent permission is bound to the server behind a tool
and, for a tool that may change something, to the arguments.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llmchat.calls import Call
from llmchat.errors import UsageError, did_you_mean
from llmchat.parse_guard import read_toml
from llmchat.settings import private_file
from llmchat.tools import Tool


class Reply(Struct, frozen=True):
    """The user's answer to a question for permission. reason: why not, for the model."""

    answer: Literal["once", "session", "always", "no"]
    reason: str = ""


Ask = Callable[[Call, Tool], Reply]


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A permanent permission. origin: see Tool. arguments: as JSON; empty for any."""

    tool: str
    origin: str = ""
    arguments: str = ""

    def is_for(self, tool: Tool) -> bool:
        return (self.tool, self.origin) == (tool.name, tool.origin)

    def allows(self, call: Call, tool: Tool) -> bool:
        return self.is_for(tool) and self.arguments in ("", _as_json(call.arguments))


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    allow: tuple[Rule, ...] = ()


def matches(name: str, tool: Tool) -> bool:
    """Whether a name that the user wrote means this tool: `files`, `files.read` or `files_read`."""
    return name == tool.group or name.replace(".", "_") == tool.name


def check_names(names: Collection[str], tools: Sequence[Tool]) -> None:
    """Raises UsageError for a name that means none of the tools."""
    for name in names:
        if not any(matches(name, tool) for tool in tools):
            known = [*dict.fromkeys(each for tool in tools for each in (tool.group, tool.name))]
            hint = did_you_mean(name, known) or f"tools in use: {', '.join(known) or 'none'}"
            raise UsageError(f"there is no tool `{name}` in use", hint)


class Permissions:
    """Decides whether a call may run.

    file: keeps permanent permissions; None keeps nothing and reads nothing, as in a
    pipe. names: tools and groups that may run. ask: None where nobody can be asked.
    """

    def __init__(self, file: Path | None, names: Collection[str] = (), ask: Ask | None = None):
        self.ask = ask
        self._file = file
        self._names = set(names)
        self._rules = list(_read(file)) if file else []

    def allow(self, name: str) -> None:
        """Let a tool or a group run for the rest of this session."""
        self._names.add(name)

    def withdraw(self, tool: Tool) -> None:
        """Forget all permissions for a tool, the permanent one included."""
        self._names -= {name for name in self._names if matches(name, tool)}
        kept = [rule for rule in self._rules if not rule.is_for(tool)]
        if kept != self._rules:
            self._rules = kept
            self._write()

    def has(self, tool: Tool) -> bool:
        """Whether every call of a tool may run without a question."""
        for_ever = any(rule.is_for(tool) and not rule.arguments for rule in self._rules)
        return for_ever or any(matches(name, tool) for name in self._names)

    def decide(self, call: Call, tool: Tool) -> Reply:
        """Whether a call may run; asks the user where that is open and possible."""
        if self.has(tool) or any(rule.allows(call, tool) for rule in self._rules):
            return Reply("once")
        if self.ask is None:
            return Reply("no", "the user did not allow this tool")
        reply = self.ask(call, tool)
        if reply.answer == "session":
            self.allow(tool.name)
        elif reply.answer == "always":
            self._keep(rule_for(call, tool))
        return reply

    def _keep(self, rule: Rule) -> None:
        self._rules.append(rule)
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        import tomli_w

        private_file(self._file)
        rules = msgspec.to_builtins(_File(tuple(self._rules)))
        self._file.write_text(_HEAD + tomli_w.dumps(rules), "utf-8")


_HEAD = "# Tools that may run without a question. `/tools forget NAME` removes an entry.\n"


def rule_for(call: Call, tool: Tool) -> Rule:
    """What "always" means for a call: this tool if it only reads, else exactly this call."""
    return Rule(tool.name, tool.origin, "" if tool.read_only else _as_json(call.arguments))


def _as_json(arguments: dict[str, Any]) -> str:
    return msgspec.json.encode(arguments, order="deterministic").decode()


def _read(file: Path) -> tuple[Rule, ...]:
    """Raises UsageError for a file that cannot be read."""
    try:
        return msgspec.convert(read_toml(file), _File).allow
    except FileNotFoundError:
        return ()
    except msgspec.ValidationError as error:
        raise UsageError(f"{file} is invalid: {error}", "remove the file, or the entry") from error
