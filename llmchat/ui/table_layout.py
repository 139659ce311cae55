"""Lay out a table: in columns if they fit, else as `title: value` lines for each row.

The head and the first rows decide, so that a long table can be printed while it arrives. No cell
is cut.
"""

from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from llmchat.ui.wrapping import wrapped

# Rows that determine the widths of the columns.
SAMPLE = 8
_GAP = "  "
# The least width of a column that has more to show.
_READABLE = 14


def rows(
    titles: Sequence[Text],
    body: Sequence[Sequence[Text]],
    right: Sequence[bool],
    width: int,
    rule_style: Style,
) -> list[Text]:
    """The rows of a table in `width` cells. right: which columns are aligned to the right."""
    widths = _widths([titles, *body[:SAMPLE]], width)
    if widths is None:
        return _records(titles, body, width)
    rule = Text(_GAP.join("─" * cells for cells in widths), rule_style)
    grid = [_line(cells, widths, right) for cells in body]
    return [*_line(titles, widths, right), rule, *(row for line in grid for row in line)]


def _widths(sample: Sequence[Sequence[Text]], width: int) -> list[int] | None:
    """The width of each column, or None if columns would be too narrow to read."""
    columns = list(zip(*sample, strict=False))
    wanted = [max(1, *(_longest(cell.plain.split("\n")) for cell in column)) for column in columns]
    least = []
    for want, column in zip(wanted, columns, strict=True):
        longest_word = max(_longest(cell.plain.split()) for cell in column)
        least.append(max(min(want, _READABLE), longest_word))
    room = width - len(_GAP) * (len(columns) - 1)
    if sum(wanted) <= room:
        return wanted
    if sum(least) > room:
        return None
    return _distribute(least, wanted, room)


def _distribute(least: list[int], wanted: list[int], room: int) -> list[int]:
    """Each column's least width, and a part of the rest in proportion to what it lacks."""
    spare, missing = room - sum(least), sum(wanted) - sum(least)
    return [low + (want - low) * spare // missing for low, want in zip(least, wanted, strict=True)]


def _longest(pieces: Sequence[str]) -> int:
    return max(map(cell_len, pieces), default=0)


def _line(cells: Sequence[Text], widths: Sequence[int], right: Sequence[bool]) -> list[Text]:
    columns = [wrapped(cell, width) for cell, width in zip(cells, widths, strict=False)]
    lines = []
    for pieces in zip_longest(*columns, fillvalue=Text()):
        placed = [_align(*one) for one in zip(pieces, widths, right, strict=False)]
        lines.append(Text(_GAP).join(placed))
        lines[-1].rstrip()
    return lines


def _align(piece: Text, width: int, right: bool) -> Text:
    blanks = " " * (width - cell_len(piece.plain))
    return Text(blanks) + piece if right else piece + blanks


def _records(titles: Sequence[Text], body: Sequence[Sequence[Text]], width: int) -> list[Text]:
    lines: list[Text] = []
    for cells in body:
        lines += [Text()] if lines else []
        for title, cell in zip(titles, cells, strict=False):
            line = title + Text(": ") + cell if title.plain else cell
            if cell.plain:
                lines += wrapped(line, width)
    return lines or [row for title in titles for row in wrapped(title, width)]
