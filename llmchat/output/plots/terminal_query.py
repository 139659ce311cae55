"""Find out whether a terminal shows images, without writing to one that could print the question.

The environment rules terminals out; a query that every terminal answers or ignores decides.
"""

import os
import re
import time
from typing import TextIO

from msgspec import Struct

from llmchat.output.plots.image_protocols import Protocol
from llmchat.settings import World

# Families that ignore control sequences they do not know. Others are not asked: GNU screen, the
# Linux console, Emacs' terminals and serial ones may print what they do not understand.
_ASKED = (
    "xterm", "tmux", "screen", "foot", "mlterm", "contour", "wezterm", "rio", "konsole", "iterm",
    "alacritty", "mintty", "kitty", "ghostty",
)  # fmt: skip
# XTVERSION (name), cell size in pixels, background colour, and at last DA1, which all answer.
_QUESTION = b"\x1b[>0q\x1b[16t\x1b]11;?\x1b\\\x1b[c"
_DA1 = re.compile(rb"\x1b\[\?([\d;]*)c")
_VERSION = re.compile(rb"\x1bP>\|([^\x1b]*)")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_BACKGROUND = re.compile(rb"\x1b\]11;rgb:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)")
_TIMEOUT_S = 0.5
# Terminals name themselves; those that speak kitty's protocol, and iTerm2's.
_KITTY, _ITERM2 = ("kitty", "ghostty"), ("iterm2", "wezterm")
# The parameter of DA1 that stands for sixel.
_SIXEL = b"4"
_USUAL_CELL = (10, 20)
_LARGEST_CELL = 100


class ImageTerminal(Struct, frozen=True):
    """A terminal that shows images. cell: width and height in pixels."""

    protocol: Protocol
    cell: tuple[int, int] = _USUAL_CELL
    dark: bool = True


def find(world: World, stream: TextIO) -> ImageTerminal | None:
    """The terminal of a stream if it shows images; None also where it cannot be asked."""
    if not is_askable(world, stream):
        return None
    return understood(_ask(stream), world)


def is_askable(world: World, stream: TextIO) -> bool:
    """Whether the stream is a terminal of a kind that may be asked."""
    env = world.env
    term = env.get("TERM", "")
    if not stream.isatty() or env.get("TERM_PROGRAM") == "Apple_Terminal" or env.get("STY"):
        return False
    # `screen` is also tmux's older name for itself.
    if term.startswith("screen") and not env.get("TMUX"):
        return False
    return term.removeprefix("xterm-").startswith(_ASKED) or term.startswith("xterm")


def understood(reply: bytes, world: World) -> ImageTerminal | None:
    """What a reply says. tmux answers for itself, so what shines through it does not count."""
    attributes = _DA1.search(reply)
    if attributes is None:
        return None
    version = _VERSION.search(reply)
    name = version[1].decode("ascii", "replace").lower() if version else ""
    protocol: Protocol
    if name.startswith(_KITTY):
        protocol = "kitty"
    elif name.startswith(_ITERM2) or (not name and _is_iterm2(world)):
        protocol = "iterm2"
    elif _SIXEL in attributes[1].split(b";")[1:]:
        protocol = "sixel"
    else:
        return None
    return ImageTerminal(protocol, _cell(reply), _is_dark(reply))


def _is_iterm2(world: World) -> bool:
    return world.env.get("TERM_PROGRAM") == "iTerm.app" and not world.env.get("TMUX")


def _cell(reply: bytes) -> tuple[int, int]:
    found = _CELL.search(reply)
    if found is None:
        return _USUAL_CELL
    height, width = int(found[1]), int(found[2])
    sensible = 4 <= width <= _LARGEST_CELL and 4 <= height <= _LARGEST_CELL
    return (width, height) if sensible else _USUAL_CELL


def _is_dark(reply: bytes) -> bool:
    found = _BACKGROUND.search(reply)
    if found is None:
        return True
    red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in found.groups())
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def _ask(stream: TextIO) -> bytes:
    """The reply of a terminal, empty if none comes in time; keys typed before are not read."""
    try:
        terminal = os.open(os.ttyname(stream.fileno()), os.O_RDWR | os.O_NOCTTY)
    except (OSError, ValueError, AttributeError):
        return b""
    try:
        return _exchange(terminal)
    except (OSError, ImportError):
        return b""
    finally:
        os.close(terminal)


def _exchange(terminal: int) -> bytes:
    import select
    import termios
    import tty

    # A job in the background would be stopped by the system when it changes the terminal.
    if os.tcgetpgrp(terminal) != os.getpgrp():
        return b""
    before = termios.tcgetattr(terminal)
    reply = b""
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        if select.select([terminal], [], [], 0)[0]:
            return b""
        os.write(terminal, _QUESTION)
        until = time.monotonic() + _TIMEOUT_S
        while not _DA1.search(reply):
            left = until - time.monotonic()
            if left <= 0 or not select.select([terminal], [], [], left)[0]:
                break
            reply += os.read(terminal, 1024)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
    return reply
