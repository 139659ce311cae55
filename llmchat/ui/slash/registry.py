"""The table of slash commands: one decorated function each. /help and completion are made from it.

A command is given the REPL's state and the rest of its line; it prints, changes the chat, or returns an answer to be streamed.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from llmchat.chat import Event
from llmchat.errors import UsageError, did_you_mean
from llmchat.ui.state import ReplState

Answer = Generator[Event] | None
Run = Callable[[ReplState, str], Answer]
# What may stand behind a command now, given what is typed of it: texts, or texts with what they mean.
Complete = Callable[[ReplState, str], Iterable[str | tuple[str, str]]]


_GROUPS = {
    "conversation": "Conversation",
    "code": "Conversation",
    "context": "Context window",
    "settings": "Model and settings",
    "sessions": "Saved chats",
    "show": "Information",
}


class LeaveRepl(Exception):
    """The user wants to go."""


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
        """The heading under which /help lists it: that of its module."""
        return _GROUPS.get(self.run.__module__.rpartition(".")[2], "More")


class Registry:
    """Commands by name and alias."""

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
        """Register the function below as a command."""

        def register(run: Run) -> Run:
            self._commands[name] = Command(name, arguments, help, run, aliases, complete)
            return run

        return register

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def groups(self) -> dict[str, list[Command]]:
        """The commands under the headings of /help, in its order."""
        headings = dict.fromkeys([*_GROUPS.values(), *(one.group for one in self)])
        return {title: [one for one in self if one.group == title] for title in headings}

    def names(self) -> list[str]:
        return [
            name for command in self._commands.values() for name in (command.name, *command.aliases)
        ]

    def get(self, name: str) -> Command | None:
        return next(
            (
                command
                for command in self._commands.values()
                if name == command.name or name in command.aliases
            ),
            None,
        )


registry = Registry()
command = registry.command


def parse(line: str) -> tuple[Command, str] | str:
    """A command with its arguments, or the text to send. Raises UsageError for what looks like a command and is none.

    `//x` sends /x, and a path such as /etc/hosts is text.
    """
    if line.startswith("//"):
        return line[1:]
    foreign = re.match(r"(?:!!?|\.)(\w+)\b", line)
    if foreign and registry.get(foreign[1]) and len(line.split()) <= 2:
        raise UsageError(f"commands begin with a slash: did you mean /{foreign[1]}?")
    match = re.match(r"/([\w?]+)(?:\s+(.*))?$", line, re.S)
    if not match:
        return line
    found = registry.get(match[1].lower())
    if found is None:
        raise UsageError(
            f"there is no command /{match[1]}",
            did_you_mean(match[1], registry.names())
            or "/help lists them; //text sends a text that begins with a slash",
        )
    return found, (match[2] or "").strip()


def number_of(word: str, what: str) -> int:
    """A positive number, for commands that take one."""
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"{what} takes a number of 1 or more, not `{word}`")
    return int(word)
