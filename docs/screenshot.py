"""Draw docs/chat.svg: a real chat in a pseudo-terminal, exactly as an emulator shows it.

usage: python docs/screenshot.py [OPTIONS OF llmchat chat]

Without options it uses the default model. The picture in the repository was made with
`--seed 3 -m qwen2.5-coder-1.5b --base FILE.gguf` (Qwen2.5-Coder-1.5B-Instruct, from Q4_K_M).
Nothing on the screen is edited; only empty rows at the end are left out.
"""

import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

TARGET = Path(__file__).parent / "chat.svg"
ROWS, COLUMNS = 45, 80
TIMEOUT_S = 300
# What the input line shows when the chat waits for the user.
EMPTY_INPUT = ">"
HEX_COLOUR = re.compile("[0-9a-f]{6}")
LINES = (
    "Which of list, tuple and set can change in Python? A three-row table.",
    "/pin 1",
    "Remove duplicates from a list, keep the order: one code block, one sentence.",
    "/context",
)
# rich's frame, without the font that it would load from the network.
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
ATTRIBUTES = {"bold": "bold", "italics": "italic", "underscore": "underline", "reverse": "reverse"}
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (126, 231, 135),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
    [
        (110, 118, 129),
        (255, 161, 152),
        (155, 245, 165),
        (242, 204, 96),
        (165, 214, 255),
        (226, 197, 255),
        (179, 240, 255),
        (255, 255, 255),
    ],
)


class Terminal:
    """A program in a pseudo-terminal, and the screen that it draws."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self.screen)
        self._child = pexpect.spawn(
            command[0], command[1:], dimensions=(ROWS, COLUMNS), encoding="utf-8", env=env
        )

    def send(self, text: str) -> None:
        self._child.send(text)

    def wait(self, ready: Callable[[list[str]], bool], quiet_s: float = 1.5) -> None:
        """Read until the screen is ready and nothing has come for a while."""
        deadline, last = time.monotonic() + TIMEOUT_S, time.monotonic()
        while time.monotonic() < deadline:
            if self._read():
                last = time.monotonic()
            elif time.monotonic() - last > quiet_s and ready(self.screen.display):
                return
        sys.exit("the program did not become ready:\n" + "\n".join(self.screen.display))

    def row(self, number: int) -> Text:
        """A row of the screen with its colours."""
        text = Text()
        for column in range(COLUMNS):
            cell = self.screen.buffer[number][column]
            text.append(cell.data, _style(cell))
        return text

    def _read(self) -> bool:
        """Show what the program has written, and answer when it asks where the cursor is."""
        try:
            text = self._child.read_nonblocking(65536, 0.1)
        except pexpect.TIMEOUT:
            return False
        self._stream.feed(text)
        if "\x1b[6n" in text:
            cursor = self.screen.cursor
            self._child.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")
        return True


def _takes_input(rows: list[str]) -> bool:
    """Whether the input line is there, and empty."""
    return any(row.rstrip() == EMPTY_INPUT for row in rows)


def _style(cell: pyte.screens.Char) -> str:
    """A cell's style in rich's words."""
    words = [word for name, word in ATTRIBUTES.items() if getattr(cell, name)]
    if cell.fg != "default":
        words.append(_colour(cell.fg))
    if cell.bg != "default":
        words.append("on " + _colour(cell.bg))
    return " ".join(words)


def _colour(name: str) -> str:
    """The emulator's name of a colour as rich calls it."""
    if HEX_COLOUR.fullmatch(name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def chat(options: list[str]) -> Terminal:
    """The screen after the questions and commands, in a chat that leaves no trace."""
    with tempfile.TemporaryDirectory() as data:
        env = os.environ | {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "XDG_DATA_HOME": data,
            "XDG_STATE_HOME": data,
        }
        terminal = Terminal([sys.executable, "-m", "llmchat", "chat", *options], env)
        terminal.wait(_takes_input)
        for line in LINES:
            terminal.send(line + "\r")
            terminal.wait(_takes_input)
    return terminal


def main() -> None:
    terminal = chat(sys.argv[1:])
    used = max(number for number, row in enumerate(terminal.screen.display) if row.strip()) + 1
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for number in range(used):
        console.print(terminal.row(number), no_wrap=True, end="\n")
    console.save_svg(str(TARGET), title="llmchat", theme=THEME, code_format=SVG_FORMAT)


if __name__ == "__main__":
    main()
