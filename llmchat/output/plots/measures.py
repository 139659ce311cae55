"""Sizes of text in pictures: 13 logical pixels high, its width estimated."""

import textwrap

from llmchat.output.plots.cells import cut, width_of

SIZE = 13.0
# Baseline below the top of a line, and the distance of two lines.
BASE, LINE = 13.0, 19.0
# The widest of common interface fonts (DejaVu Sans) takes this much a character on average.
_CELL = 0.6 * SIZE


def text_width(text: str) -> float:
    return width_of(text) * _CELL


def cut_to(text: str, width: float) -> str:
    return cut(text, int(width / _CELL), "…")


def wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, max(int(width / _CELL), 1))
