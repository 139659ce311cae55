"""The modes of the terminal, changed for a while and restored whatever ends it."""

import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def restored_terminal(
    stdin: TextIO, *, off: int = 0, on: int = 0, drops_input: bool = False
) -> Iterator[None]:
    """Restore the terminal's modes at the end; until then, local modes `off` and `on`.

    drops_input: forget what was typed before. prompt_toolkit restores the modes too, but a signal
    can end the program before it does.
    """
    try:
        terminal = stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        yield
        return
    changed = list(before)
    changed[3] = changed[3] & ~off | on
    when = termios.TCSAFLUSH if drops_input else termios.TCSANOW
    termios.tcsetattr(terminal, when, changed)
    try:
        yield
    finally:
        # A terminal that was closed has no modes any more.
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)
