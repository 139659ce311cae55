"""Wrap styled text into rows of a width in terminal cells."""

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text


def wrapped(text: Text, width: int) -> list[Text]:
    """Wrap at words; a word that is longer than a row is broken."""
    lines = list(text.wrap(Console(width=80, _environ={}), width, tab_size=4))
    for line in lines:
        line.rstrip()
    return lines


def fitted(row: Text, width: int) -> list[Text]:
    """Break a row that is too wide, at any character."""
    if cell_len(row.plain) <= width:
        return [row]
    ends: list[int] = []
    for piece in chop_cells(row.plain, width):
        ends.append((ends[-1] if ends else 0) + len(piece))
    return list(row.divide(ends[:-1]))
