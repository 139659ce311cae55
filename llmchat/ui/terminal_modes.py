"""The modes of the terminal, changed for a while and restored whatever ends it.

Windows has no such modes: there, what is typed during an answer may be shown.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TextIO

try:
    import termios
except ImportError:
    HAS_MODES = False
else:
    HAS_MODES = True


def without_echo(stdin: TextIO) -> AbstractContextManager[None]:
    """Hide the keys pressed while an answer is printed; the next prompt receives them."""
    return restored_terminal(stdin, off=termios.ECHO if HAS_MODES else 0)


def for_a_question(stdin: TextIO) -> AbstractContextManager[None]:
    """Show what is typed, a line at a time; what was typed before does not answer."""
    on = termios.ECHO | termios.ICANON if HAS_MODES else 0
    return restored_terminal(stdin, on=on, drops_input=True)


@contextmanager
def restored_terminal(
    stdin: TextIO, *, off: int = 0, on: int = 0, drops_input: bool = False
) -> Iterator[None]:
    """Restore the terminal's modes at the end; until then, local modes `off` and `on`.

    drops_input: forget what was typed before. prompt_toolkit restores the modes too, but a signal
    can end the program before it does.
    """
    if not HAS_MODES:
        if drops_input and stdin.isatty():
            _drop_typed_keys()
        yield
        return
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


def _drop_typed_keys() -> None:
    """Of Windows' console."""
    with suppress(ImportError):
        from msvcrt import getwch, kbhit  # type: ignore[attr-defined]

        while kbhit():
            getwch()
