"""The table of slash commands: one decorated function each; /help and completion use it.

A command receives the REPL's state and the rest of its line. It prints, changes the chat, or
returns an answer to be streamed.
"""

import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from llmchat import plugins
from llmchat.chat import Event
from llmchat.errors import UsageError, did_you_mean
from llmchat.plugins import Offer
from llmchat.ui.state import ReplState

Answer = Generator[Event] | None
Run = Callable[[ReplState, str], Answer]
# Completions for what is typed after a command: texts, or texts with their meanings.
Complete = Callable[[ReplState, str], Iterable[str | tuple[str, str]]]

# The headings of /help, by the module of a command.
_GROUPS = {
    "conversation": "Conversation",
    "code": "Conversation",
    "context": "Context window",
    "settings": "Model and settings",
    "role": "Model and settings",
    "structure": "Model and settings",
    "theme": "Model and settings",
    "tools": "Tools",
    "web": "Tools",
    "memory": "Memory",
    "recall": "Memory",
    "docs": "Memory",
    "sessions": "Saved chats",
    "show": "Information",
}


class LeaveRepl(Exception):
    """The user wants to leave."""


@dataclass(frozen=True)
class Command:
    name: str
    arguments: str
    help: str
    run: Run
    aliases: tuple[str, ...] = ()
    complete: Complete | None = None

    @property
    def group(self) -> str:
        """The heading of /help that lists the command."""
        return _GROUPS.get(self.run.__module__.rpartition(".")[2], "More")


class _OfPlugin(Command):
    """A command that a plugin adds."""

    @property
    def group(self) -> str:
        return "Plugins"


class Registry:
    """Commands by name and alias; those of plugins follow, and are imported by `get`."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def command(
        self,
        name: str,
        arguments: str,
        help: str,
        *,
        aliases: tuple[str, ...] = (),
        complete: Complete | None = None,
    ) -> Callable[[Run], Run]:
        """Register the decorated function as a command."""

        def register(run: Run) -> Run:
            self._commands[name] = Command(name, arguments, help, run, aliases, complete)
            return run

        return register

    def __iter__(self) -> Iterator[Command]:
        yield from self._commands.values()
        taken = self.built_in()
        for offer in plugins.offers("slash"):
            if offer.name not in taken:
                yield _OfPlugin(offer.name, "", offer.summary, partial(_run, offer))

    def built_in(self) -> Collection[str]:
        """The names and aliases of llmchat's own commands."""
        commands = self._commands.values()
        return {name for one in commands for name in (one.name, *one.aliases)}

    def groups(self) -> dict[str, list[Command]]:
        """The commands under the headings of /help, in order."""
        headings = dict.fromkeys([*_GROUPS.values(), *(command.group for command in self)])
        return {
            heading: [command for command in self if command.group == heading]
            for heading in headings
        }

    def names(self) -> list[str]:
        return [name for command in self for name in (command.name, *command.aliases)]

    def get(self, name: str) -> Command | None:
        """The command with this name or alias. Raises PluginError for a plugin with a fault."""
        for command in self._commands.values():
            if name == command.name or name in command.aliases:
                return command
        offer = plugins.find("slash", name)
        return _imported(offer) if offer else None


@lru_cache(maxsize=64)
def _imported(offer: Offer) -> Command:
    made = plugins.make(offer)
    if not isinstance(made, Command):
        raise plugins.fault(offer, f"its hook returned `{type(made).__name__}`, not a Command")
    complete = partial(_completions, offer, made.complete) if made.complete else None
    return _OfPlugin(offer.name, made.arguments, made.help, made.run, complete=complete)


def _run(offer: Offer, state: ReplState, rest: str) -> Answer:
    return _imported(offer).run(state, rest)


def _completions(
    offer: Offer, complete: Complete, state: ReplState, typed: str
) -> list[str | tuple[str, str]]:
    with plugins.faults(offer):
        return list(complete(state, typed))


registry = Registry()
command = registry.command


def parse(line: str) -> tuple[Command, str] | str:
    """A command with its arguments, or the text to send.

    `//x` sends `/x`, and a path such as /etc/hosts is text. Raises UsageError for an unknown
    command and for one with a wrong mark, such as `!help`.
    """
    if line.startswith("//"):
        return line[1:]
    wrong_mark = re.match(r"(?:!!?|\.)(\w+)\b", line)
    if wrong_mark and registry.get(wrong_mark[1]) and len(line.split()) <= 2:
        raise UsageError(f"commands begin with a slash: did you mean /{wrong_mark[1]}?")
    match = re.match(r"/([\w?]+)(?:\s+(.*))?$", line, re.S)
    if not match:
        return line
    found = registry.get(match[1].lower())
    if found is None:
        raise UsageError(
            f"there is no command /{match[1]}",
            did_you_mean(match[1], registry.names(), "/")
            or "/help lists them; //text sends a text that begins with a slash",
        )
    return found, (match[2] or "").strip()


def number_of(word: str, what: str) -> int:
    """Parse a positive number, an argument of the command `what`."""
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"{what} takes a number of 1 or more, not `{word}`")
    return int(word)
