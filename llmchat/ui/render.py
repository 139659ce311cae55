"""An answer on the screen while it comes. Plain text as it is, or Markdown that is redrawn without flicker.

Markdown: blocks that can no longer change are printed once and scroll away; only the unfinished end is drawn again, each time in one
write. What is redrawn is never taller than the screen, for lines that have scrolled away cannot be taken back.
"""

import io
import itertools
import time
from collections.abc import Callable
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown
from rich.syntax import Syntax
from rich.text import Text

from llmchat.settings import World
from llmchat.ui.plain import HARMFUL

_REDRAW_SECONDS = 0.05
_CLEAR_BELOW = "\x1b[J"
_Size = Callable[[], tuple[int, int]]


class Aside:
    """What is no part of the answer, dimmed under a label: thoughts, a summary. Plain where there is no colour."""

    def __init__(self, world: World, *, plain: bool = False):
        self._stream = world.stdout
        dull = plain or not world.stdout.isatty() or world.env.get("TERM") == "dumb" or bool(world.env.get("NO_COLOR"))
        self._on, self._off = ("", "") if dull else ("\x1b[2m", "\x1b[0m")
        self._label = ""
        self._last = ""

    def feed(self, label: str, text: str) -> None:
        """Write under a label; an empty text shows the label alone."""
        if label != self._label:
            self.finish()
            self._label, self._last = label, "\n"
            self._write(f"[{label}]\n")
        shown = text.translate(HARMFUL).lstrip("\n") if self._last == "\n" else text.translate(HARMFUL)
        if shown:
            self._last = shown[-1]
            self._write(shown)

    def finish(self) -> None:
        if self._label:
            self._write("\n" if self._last == "\n" else "\n\n")
        self._label = ""

    def _write(self, text: str) -> None:
        self._stream.write(f"{self._on}{text}{self._off}")
        self._stream.flush()


class MarkdownRenderer:
    """Streams Markdown to a terminal. `size` gives (columns, rows) now; it is asked at each redraw, so that a resize is seen."""

    def __init__(self, stream: TextIO, size: _Size | None = None):
        self._stream = stream
        self._size = size or (lambda: _terminal_size(stream))
        self._text = ""
        self._settled = 0  # characters of the text that are on the screen for good
        self._context = ""  # the last block of those: what stands between it and the next depends on both
        self._tail_widths: list[int] = []  # cells of each row that will be drawn again
        self._drawn_at = 0.0

    def feed(self, text: str) -> None:
        self._text += text.translate(HARMFUL)
        if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw(final=False)

    def finish(self) -> None:
        self._draw(final=True)

    def _draw(self, *, final: bool) -> None:
        width, height = self._size()
        out = self._erase(width)
        starts = [0, len(self._text) - self._settled] if final else block_starts(self._text[self._settled :])
        if len(starts) > 1:
            block = self._text[self._settled : self._settled + starts[-1]]
            out += _lines(self._new_rows(block, width))
            self._context = block[starts[-2] :]
            self._settled += starts[-1]
        # One row stays free for the cursor: at the foot of the screen a line end would scroll the first row out of reach.
        tail = [] if final else self._new_rows(self._text[self._settled :], width)[-max(1, height - 1) :]
        self._tail_widths = [Text.from_ansi(row).cell_len for row in tail]
        self._stream.write(out + _lines(tail))
        self._stream.flush()
        self._drawn_at = time.monotonic()

    def _new_rows(self, markdown: str, width: int) -> list[str]:
        """The rows that `markdown` adds below the blocks that are printed."""
        return rows_of(self._context + markdown, width)[len(rows_of(self._context, width)) :]

    def _erase(self, width: int) -> str:
        """Back to the first row of the tail, and clear from there. In a window that became narrower its rows are folded."""
        rows = sum(max(1, -(-cells // max(width, 1))) for cells in self._tail_widths)
        return f"\x1b[{rows}F{_CLEAR_BELOW}" if rows else ""


class _Code(CodeBlock):
    """Code without a frame of blanks around it: it is copied from the screen as it was written."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True)


class _Markdown(Markdown):
    elements = {**Markdown.elements, "fence": _Code, "code_block": _Code}


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    size = Console(file=stream).size
    return size.width, size.height


def _lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def rows_of(markdown: str, width: int) -> list[str]:
    """Markdown as rich prints it at a width, one string with its colours a row, without blank rows at the ends."""
    if not markdown.strip():
        return []
    room = io.StringIO()
    Console(file=room, width=max(width, 4), force_terminal=True, legacy_windows=False, color_system="standard").print(
        _Markdown(markdown, code_theme="ansi_dark")
    )
    rows = [row.rstrip(" ") for row in room.getvalue().split("\n")]
    while rows and not rows[-1].strip():
        rows.pop()
    while rows and not rows[0].strip():
        rows.pop(0)
    return rows


def block_starts(markdown: str) -> list[int]:
    """Where the top-level blocks of a text begin, in characters. All but the last can no longer change, whatever follows.

    The last line counts when it is whole. (A link definition that comes after its use is the exception, and is not waited for.)
    """
    complete = markdown[: markdown.rfind("\n") + 1]
    tokens = MarkdownIt("commonmark").enable("table").parse(complete)
    firsts = [token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    offsets = [0, *itertools.accumulate(map(len, complete.splitlines(keepends=True)))]
    return [offsets[line] for line in firsts]
