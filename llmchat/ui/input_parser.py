"""Parse a line typed into the REPL: a slash command, a shell command or a message."""

from collections.abc import Mapping

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.process.programs import which
from llmchat.ui import keywords
from llmchat.ui.keys import BLOCK, without_block
from llmchat.ui.slash import Command, parse, registry


class ShellCommand(Struct, frozen=True):
    """A command for the user's own shell."""

    command: str


def parse_input(line: str, env: Mapping[str, str]) -> tuple[Command, str] | ShellCommand | str:
    """A slash command with its arguments, a shell command, or the text of a message.

    A space before `!` sends the line as a message. `!name`, where `name` is one of the slash
    commands and not a program, raises UsageError with a hint.
    """
    if line.startswith("!") and not line.startswith("!!"):
        command = line[1:].strip()
        if not command:
            raise UsageError(
                "`!` runs a command of your shell",
                "for example `!git diff`; a space before it sends it as text",
            )
        program = command.split()[0]
        if registry.get(program) is None or which(program, env):
            return ShellCommand(command)
    if line.lstrip().startswith(BLOCK):
        return without_block(line)
    return parse(keywords.command_of(line.strip()))
