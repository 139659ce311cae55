"""Write pictures as SVG: alone in a file, or within a page, with a table of the numbers."""

from html import escape

from llmchat.output.plots.descriptions import tables
from llmchat.output.plots.figures import Figure
from llmchat.output.plots.measures import SIZE
from llmchat.output.plots.pictures import picture
from llmchat.output.plots.shapes import (
    DARK,
    LIGHT,
    Label,
    Mark,
    Picture,
    Polyline,
    Rectangle,
    Shape,
    colour_of,
    is_circle,
    polygon,
)

# Widths of the pictures for a page and for a phone; text keeps a size that can be read.
_WIDE, _NARROW = 680.0, 340.0
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_ALONE = (
    f"<style>:root{{color:{LIGHT.text};background:{LIGHT.background}}}"
    f"@media (prefers-color-scheme:dark){{:root{{color:{DARK.text};background:{DARK.background}}}}}"
    "</style>"
)
_OPACITY = {"text": 1.0, "muted": 0.7, "grid": 0.18}
# The rules that a page with figures needs.
PAGE_STYLE = (
    ".plot{margin:1rem 0}.plot svg{width:100%;max-width:680px;height:auto;display:block}"
    ".plot .narrow{display:none}.plot summary{cursor:pointer;opacity:.7}"
    ".plot table{width:auto}.plot td,.plot th{padding:.1rem 1rem .1rem 0;text-align:left}"
    "@media (max-width:600px){.plot .wide{display:none}.plot .narrow{display:block}}"
)


def svg_file(figure: Figure, width: float = _WIDE) -> str:
    """A file of its own, for light and dark surroundings."""
    return _svg(picture(figure, width), 'width="{0:g}" height="{1:g}"', _ALONE, margin=12)


def svg_inline(figure: Figure, width: float = _WIDE, classes: str = "") -> str:
    """An element of a page, which takes the page's own text colour."""
    return _svg(picture(figure, width), f'class="{classes}"' if classes else "")


def figure_html(figure: Figure) -> str:
    """A figure for a page that has PAGE_STYLE: pictures for wide and narrow, and a table."""
    wide, narrow = svg_inline(figure, _WIDE, "wide"), svg_inline(figure, _NARROW, "narrow")
    return f'<figure class="plot">{wide}{narrow}{_details(figure)}</figure>'


def notebook_html(figure: Figure) -> str:
    """A figure for a cell of a notebook, without rules that would change the page around it."""
    box = '<div style="max-width:680px">'
    return f"{box}{svg_inline(figure)}{_details(figure)}</div>"


def _details(figure: Figure) -> str:
    shown = "".join(_table(heads, rows) for heads, rows in tables(figure))
    return f"<details><summary>numbers</summary>{shown}</details>"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(shown: Picture, attributes: str, style: str = "", margin: float = 0) -> str:
    width, height = shown.width + 2 * margin, shown.height + 2 * margin
    shapes = "".join(map(_element, shown.shapes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-margin:g} {-margin:g} {width:g}'
        f' {height:g}" {attributes.format(width, height)} role="img" font-family="{_FONT}"'
        f' font-size="{SIZE:g}">'
        f"<title>{escape(shown.title)}</title><desc>{escape(shown.description)}</desc>"
        f"{style}{shapes}</svg>"
    )


def _element(shape: Shape) -> str:
    if isinstance(shape, Polyline):
        points = _points(shape.points)
        return (
            f'<polyline points="{points}" fill="none" {_paint("stroke", shape.colour)}'
            f' stroke-width="{shape.width:g}" stroke-linejoin="round"/>'
        )
    fill = _paint("fill", shape.colour)
    if isinstance(shape, Rectangle):
        return (
            f'<rect x="{shape.x:.4g}" y="{shape.y:.4g}" width="{shape.width:.4g}"'
            f' height="{shape.height:.4g}" {fill}/>'
        )
    if isinstance(shape, Label):
        anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
        weight = ' font-weight="600"' if shape.bold else ""
        place = f'x="{shape.x:.4g}" y="{shape.y:.4g}"'
        return f"<text {place}{anchor}{weight} {fill}>{escape(shape.text)}</text>"
    return _mark(shape, fill)


def _mark(shape: Mark, fill: str) -> str:
    if is_circle(shape):
        return f'<circle cx="{shape.x:.4g}" cy="{shape.y:.4g}" r="{shape.radius:g}" {fill}/>'
    return f'<polygon points="{_points(polygon(shape))}" {fill}/>'


def _points(points: list[tuple[float, float]] | tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{x:.5g},{y:.5g}" for x, y in points)


def _paint(attribute: str, colour: int | str) -> str:
    if isinstance(colour, int):
        return f'{attribute}="{colour_of(colour)}"'
    opacity = _OPACITY[colour]
    faded = "" if opacity == 1 else f' {attribute}-opacity="{opacity:g}"'
    return f'{attribute}="currentColor"{faded}'
