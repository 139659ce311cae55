"""Draw docs/chat.svg: the real program, on the default model, in a pseudo-terminal that an emulator reads.

usage: python docs/screenshot.py       needs `llmchat pull smollm2`
"""

import io
import os
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).parent / "chat.svg"
LINES, COLUMNS = 24, 88
TYPED = [
    "What is the capital of France?",
    "/pin 1",
    "Write a Python function that adds two numbers.",
    "/context",
]


class Terminal:
    """A program behind a terminal of LINES x COLUMNS."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self.screen)
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(LINES, COLUMNS),
            encoding="utf-8",
            timeout=60,
            env=env,
        )

    def settle(self, quiet_s: float) -> None:
        """Read until nothing came for a while."""
        last = time.monotonic()
        while time.monotonic() - last < quiet_s:
            try:
                text = self._child.read_nonblocking(65536, 0.1)
            except pexpect.TIMEOUT:
                continue
            self._stream.feed(text)
            last = time.monotonic()
            if "\x1b[6n" in text:  # the program asks where the cursor is
                self._child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")

    def type(self, line: str) -> None:
        self._child.send(line + "\r")

    def line(self, number: int) -> Text:
        """A screen line with its colours."""
        text = Text()
        for column in range(COLUMNS):
            cell = self.screen.buffer[number][column]
            style = [
                name for name in ("bold", "italics", "underscore", "reverse") if getattr(cell, name)
            ]
            names = {"italics": "italic", "underscore": "underline"}
            words = [names.get(name, name) for name in style]
            for name, colour in (("", cell.fg), ("on ", cell.bg)):
                if colour != "default":
                    words.append(name + _colour(colour))
            text.append(cell.data, " ".join(words))
        return text


def _colour(name: str) -> str:
    """The emulator's name of a colour as rich calls it."""
    if name not in pyte.graphics.FG_BG_256 and not name.isalpha():
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def main() -> None:
    with tempfile.TemporaryDirectory() as data:
        env = os.environ | {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "XDG_DATA_HOME": data,
            "XDG_STATE_HOME": data,
        }
        terminal = Terminal([sys.executable, "-m", "llmchat"], env)
        terminal.settle(6)
        for line in TYPED:
            terminal.type(line)
            terminal.settle(2.5)
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for number in range(LINES):
        console.print(terminal.line(number), no_wrap=True, end="\n")
    console.save_svg(str(TARGET), title="llmchat")


if __name__ == "__main__":
    main()
