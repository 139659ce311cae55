"""Stream Markdown to a terminal without flicker.

What can no longer change is printed once and scrolls away: finished blocks, and the stable lines
and words of the last block. Only the end is drawn again, from the first row that changed, each row
over the old one. The screen is never cleared, because tmux then copies it into the scrollback.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TextIO

from rich.cells import chop_cells
from rich.console import Console
from rich.text import Text

from llmchat.output.terminal_text import harmless
from llmchat.ui.code_blocks import code_blocks
from llmchat.ui.markdown import DEFAULT_OPTIONS, MarkdownOptions, paint, rows_of
from llmchat.ui.stable_prefix import stable_offsets, stable_words_end

_REDRAW_SECONDS = 0.05
_CLEAR_ROW = "\x1b[K"
# Drawing may take one part in so many of the time.
_ONE_IN = 4
_FRAME = " ▌─"
_Size = Callable[[], tuple[int, int]]


class MarkdownRenderer:
    """Renders one answer. `size` returns (columns, rows), and is called for each redraw.

    The text consists of what was dropped, the context (printed already, but needed to draw what
    follows) and the tail. `_ink` counts the visible characters at the start of the tail that are
    printed already, as rows of a paragraph at any width.
    """

    def __init__(
        self, stream: TextIO, size: _Size | None = None, options: MarkdownOptions = DEFAULT_OPTIONS
    ):
        self._screen = _LiveRows(stream)
        self._size = size or (lambda: _terminal_size(stream))
        self._options = options
        self._text = ""
        # The offset of the tail.
        self._context = 0
        self._ink = 0
        self._next_draw = 0.0

    def feed(self, text: str) -> None:
        self._text += harmless(text)
        if time.monotonic() >= self._next_draw:
            self._draw()

    def finish(self) -> None:
        width, height = self._size()
        self._screen.show(self._rest(self._text, width), [], width, height)

    def _draw(self) -> None:
        begun = time.monotonic()
        width, height = self._size()
        done = [*self._settle_lines(width), *self._settle_words(width)]
        self._screen.show(done, self._rest(self._text, width), width, height)
        drawn = time.monotonic()
        pause = max(_REDRAW_SECONDS, (drawn - begun) * _ONE_IN) if _REDRAW_SECONDS else 0.0
        self._next_draw = drawn + pause

    def _settle_lines(self, width: int) -> list[Text]:
        """Move the stable lines from the tail into the context; returns their rows."""
        before, block, end = stable_offsets(self._text)
        if end <= self._context:
            return []
        rows = self._below_context(self._text[:end], width)
        undone = _without_ink(rows, self._ink)
        self._context, self._ink = end, max(0, self._ink - sum(map(_ink, rows)))
        self._drop(block if end > block else before)
        return undone

    def _drop(self, length: int) -> None:
        """Drop text that is not needed to draw what follows."""
        if self._options.first and length:
            first = self._options.first + len(code_blocks(self._text[:length]))
            self._options = self._options._replace(first=first)
        self._text = self._text[length:]
        self._context -= length

    def _settle_words(self, width: int) -> list[Text]:
        """The rows of the last paragraph that later words cannot change: all but the last."""
        end = stable_words_end(self._text)
        if end <= self._context:
            return []
        rows = self._rest(self._text[:end], width)[:-1]
        # A row without ink would be printed again, because only ink is counted.
        while rows and not _ink(rows[-1]):
            rows.pop()
        self._ink += sum(map(_ink, rows))
        return rows

    def _rest(self, text: str, width: int) -> list[Text]:
        """The rows of a text that are not printed yet."""
        return _without_ink(self._below_context(text, width), self._ink)

    def _below_context(self, text: str, width: int) -> list[Text]:
        printed = _count_rows(self._text[: self._context], width, self._options)
        return rows_of(text, width, self._options)[printed:]


class _LiveRows:
    """The last rows on the screen, which may still change.

    The cursor stays at the start of the row below them.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        # Each row as painted, and without colours.
        self._rows: list[tuple[str, str]] = []

    def show(self, done: Sequence[Text], live: Sequence[Text], width: int, height: int) -> None:
        """Replace the live rows by `done`, which is final, and the new live rows below it."""
        # Rows that have scrolled away cannot be written again. With half a screen of live rows,
        # they stay in reach when the window becomes smaller.
        visible = live[max(0, len(live) - max(1, height // 2)) :]
        texts = [*done, *visible]
        rows = list(zip(paint(texts), (row.plain for row in texts), strict=True))
        same = _common(self._rows, rows)
        self._stream.write(self._over(rows[same:], self._rows[same:], width, height))
        self._stream.flush()
        self._rows = rows[len(done) :]

    def _over(
        self, rows: list[tuple[str, str]], old: list[tuple[str, str]], width: int, height: int
    ) -> str:
        """Write rows over the old ones, which a narrower window may have wrapped."""
        up = min(sum(_height(plain, width) for _, plain in old), max(1, height - 1))
        # Clear before writing: after a full row the cursor is still on its last character.
        written = "".join(_CLEAR_ROW + painted + "\n" for painted, plain in rows)
        left = up - len(rows)
        below = f"{_CLEAR_ROW}\n" * left + f"\x1b[{left}A" if left > 0 else ""
        return (f"\x1b[{up}F" if up else "") + written + below


def _common(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> int:
    """How many rows at the start are equal."""
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        if one != other:
            return index
    return min(len(old), len(new))


def _height(plain: str, width: int) -> int:
    return max(1, len(chop_cells(plain, max(width, 2))))


@lru_cache(maxsize=4)
def _count_rows(markdown: str, width: int, options: MarkdownOptions) -> int:
    return len(rows_of(markdown, width, options)) if markdown else 0


def _ink(row: Text) -> int:
    return sum(char not in _FRAME for char in row.plain)


def _without_ink(rows: list[Text], ink: int) -> list[Text]:
    """The rows after the first `ink` visible characters.

    A row that they end in keeps its indentation.
    """
    if not ink:
        return rows
    for index, row in enumerate(rows):
        held = _ink(row)
        if held > ink:
            return [*([_after(row, ink)] if ink else [row]), *rows[index + 1 :]]
        ink -= held
        if not ink:
            return rows[index + 1 :]
    return []


def _after(row: Text, ink: int) -> Text:
    indent = len(row.plain) - len(row.plain.lstrip(_FRAME))
    end = indent
    while ink or row.plain[end] in _FRAME:
        ink -= row.plain[end] not in _FRAME
        end += 1
    return row[:indent] + row[end:]


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    size = Console(file=stream).size
    return size.width, size.height
