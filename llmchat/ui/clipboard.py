"""Copy to the clipboard: through tmux inside tmux, by OSC 52 on a terminal, else by a program.

OSC 52 also works over ssh. Never reads the clipboard.
"""

import base64
import subprocess

from llmchat.errors import LlmchatError, UsageError
from llmchat.process.programs import which
from llmchat.settings import World

# Programs that read stdin, each with the variable that is set where it can work.
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ["wl-copy"]),
    ("DISPLAY", ["xclip", "-selection", "clipboard"]),
    ("DISPLAY", ["xsel", "--clipboard", "--input"]),
    ("HOME", ["pbcopy"]),
)
_TIMEOUT_S = 5


def copy(text: str, world: World) -> str:
    """Copy a text; returns where it went, for a message."""
    if world.env.get("TMUX") and which("tmux", world.env):
        # tmux drops OSC 52 of programs unless set-clipboard is on; -w passes it on to the terminal.
        _run(["tmux", "load-buffer", "-w", "-"], text, world)
        return "tmux's buffer and the clipboard"
    if world.stdout.isatty() and world.env.get("TERM") != "dumb":
        world.stdout.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a")
        world.stdout.flush()
        return "the terminal's clipboard"
    if program := _local_program(world):
        _run(program, text, world)
        return f"the clipboard, with {program[0]}"
    raise UsageError(
        "this terminal gives no access to a clipboard",
        "`/save FILE` or `/save code N FILE` writes a file",
    )


def _local_program(world: World) -> list[str] | None:
    for variable, command in _PROGRAMS:
        if world.env.get(variable) and which(command[0], world.env):
            return command
    return None


def _run(command: list[str], text: str, world: World) -> None:
    try:
        subprocess.run(
            command, input=text.encode(), env=dict(world.env), check=True, capture_output=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise LlmchatError(f"{' '.join(command)} failed: {error}") from error
