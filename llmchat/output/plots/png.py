"""Write pictures as pixels, with Pillow."""

import io
from typing import TYPE_CHECKING, Any

from llmchat.output.plots.figures import Figure
from llmchat.output.plots.measures import SIZE
from llmchat.output.plots.pictures import picture
from llmchat.output.plots.shapes import (
    LIGHT,
    Colour,
    Greys,
    Label,
    Mark,
    Polyline,
    Rectangle,
    Shape,
    colour_of,
    is_circle,
    polygon,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

# Pillow draws without smooth edges: everything is drawn larger and reduced.
_OVERSAMPLING = 2
_MARGIN = 12.0
# The largest side of a picture, in pixels.
_MOST = 8000


def png(figure: Figure, width: float = 680.0, scale: float = 2.0, greys: Greys = LIGHT) -> bytes:
    """A PNG file. scale: pixels of a logical pixel."""
    found = io.BytesIO()
    image(figure, width, scale, greys).save(found, "PNG", optimize=True)
    return found.getvalue()


def image(figure: Figure, width: float, scale: float, greys: Greys) -> "Image":
    """An RGB image, `width` logical pixels wide, its margin included."""
    from PIL import Image, ImageDraw, ImageFont

    shown = picture(figure, width - 2 * _MARGIN)
    height = shown.height + 2 * _MARGIN
    scale = min(scale, _MOST / max(width, height))
    size = round(width * scale), round(height * scale)
    large = scale * _OVERSAMPLING
    canvas = Image.new("RGB", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), greys.background)
    pen = _Pen(ImageDraw.Draw(canvas), large, greys, ImageFont.load_default(SIZE * large))
    for shape in shown.shapes:
        pen.draw(shape)
    return canvas.resize(size, Image.Resampling.LANCZOS)


class _Pen:
    """Draws shapes on a large canvas."""

    def __init__(self, draw: "ImageDraw", scale: float, greys: Greys, font: Any):
        self._draw, self._scale, self._greys, self._font = draw, scale, greys, font

    def draw(self, shape: Shape) -> None:
        colour = self._colour(shape.colour)
        if isinstance(shape, Polyline):
            points = [self._at(x, y) for x, y in shape.points]
            width = max(1, round(shape.width * self._scale))
            self._draw.line(points, fill=colour, width=width, joint="curve")
        elif isinstance(shape, Rectangle):
            corner = self._at(shape.x + shape.width, shape.y + shape.height)
            self._draw.rectangle((self._at(shape.x, shape.y), corner), fill=colour)
        elif isinstance(shape, Label):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            place = self._at(shape.x, shape.y)
            width = round(self._scale * 0.3) if shape.bold else 0
            self._draw.text(
                place,
                shape.text,
                fill=colour,
                font=self._font,
                anchor=anchor,
                stroke_width=width,
            )
        else:
            self._mark(shape, colour)

    def _mark(self, mark: Mark, colour: str) -> None:
        if is_circle(mark):
            r = mark.radius
            box = (self._at(mark.x - r, mark.y - r), self._at(mark.x + r, mark.y + r))
            self._draw.ellipse(box, fill=colour)
        else:
            self._draw.polygon([self._at(x, y) for x, y in polygon(mark)], fill=colour)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (x + _MARGIN) * self._scale, (y + _MARGIN) * self._scale

    def _colour(self, colour: Colour) -> str:
        return colour_of(colour) if isinstance(colour, int) else getattr(self._greys, colour)
