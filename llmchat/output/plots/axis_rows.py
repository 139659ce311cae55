"""Draw a horizontal axis, and notes below it, with characters."""

import textwrap

from llmchat.output.plots.cells import DIM, Glyphs, Row
from llmchat.output.plots.scale import Scale


def axis_rows(axis: Scale, margin: int, columns: int, glyphs: Glyphs) -> list[Row]:
    """A horizontal axis with its ticks, and the labels that fit below it."""
    _, _, corner, flat, tick = glyphs.axis
    line, labels = [flat] * columns, [" "] * (margin + columns + 1)
    free = 0
    for place, label in zip(axis.ticks, axis.labels, strict=True):
        column = round(axis.place(place) * (columns - 1))
        start = min(max(margin + 1 + column - len(label) // 2, 0), len(labels) - len(label))
        line[column] = tick
        if start >= free:
            labels[start : start + len(label)] = label
            free = start + len(label) + 1
    side = " " * margin + corner
    return [[(side + "".join(line), DIM)], [("".join(labels), DIM)]]


def note_rows(note: str, columns: int) -> list[Row]:
    return [[(line, DIM)] for line in textwrap.wrap(note, columns)]
