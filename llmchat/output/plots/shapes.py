"""Shapes that a picture is made of, with their colours; sizes are in logical pixels."""

from typing import Literal

from msgspec import Struct


class Greys(Struct, frozen=True):
    """The colours of a picture besides those of its curves."""

    background: str
    text: str
    muted: str
    grid: str


LIGHT = Greys("#ffffff", "#1b1b1b", "#5f5f5f", "#dddddd")
DARK = Greys("#16181c", "#e6e6e6", "#a8a8a8", "#3a3d42")
# Of eight curves: each has a contrast of at least 3 : 1 with both backgrounds (WCAG 2.2, 1.4.11),
# so that one picture suits light and dark pages.
SERIES = (
    "#2f7fd1", "#d9651b", "#2e9257", "#a05bc9", "#d6457a", "#1b8f9e", "#9a7230", "#7d7d7d",
)  # fmt: skip
MARKS = ("circle", "square", "triangle", "diamond")

Anchor = Literal["start", "middle", "end"]
# The number of a curve, or one of the picture's own greys.
Colour = int | Literal["text", "muted", "grid"]


class Polyline(Struct, frozen=True):
    points: tuple[tuple[float, float], ...]
    colour: Colour
    width: float = 1.0


class Rectangle(Struct, frozen=True):
    x: float
    y: float
    width: float
    height: float
    colour: Colour


class Mark(Struct, frozen=True):
    """A small sign around (x, y): `kind` is an index of MARKS."""

    x: float
    y: float
    kind: int
    colour: Colour
    radius: float = 3.5


class Label(Struct, frozen=True):
    """One line of text; y is its baseline."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    colour: Colour = "text"
    bold: bool = False


Shape = Polyline | Rectangle | Mark | Label


class Picture(Struct, frozen=True):
    """Shapes on a background. title, description: for people who do not see it."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    title: str
    description: str


def polygon(mark: Mark) -> list[tuple[float, float]]:
    """The corners of a mark that is not a circle."""
    x, y, r = mark.x, mark.y, mark.radius
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.1), (1.1, 0.9), (-1.1, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    }[MARKS[mark.kind % len(MARKS)]]
    return [(x + r * right, y + r * down) for right, down in corners]


def is_circle(mark: Mark) -> bool:
    return MARKS[mark.kind % len(MARKS)] == "circle"


def colour_of(colour: Colour) -> str:
    """The colour of a curve; greys are up to who draws."""
    return SERIES[colour % len(SERIES)] if isinstance(colour, int) else colour
