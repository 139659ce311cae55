"""Write an image to a terminal: kitty's graphics protocol, iTerm2's inline images, and sixel."""

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Protocol = Literal["kitty", "iterm2", "sixel"]

# The longest payload of one kitty command.
_CHUNK = 4096
# Colours of a sixel image: terminals have 256 registers, some fewer.
_COLOURS = 64


def encode(image: "Image", protocol: Protocol, columns: int, rows: int) -> str:
    """The text that shows an image on `columns` × `rows` cells, without a line end.

    Sixel knows pixels only: there the image must have the size of the cells.
    """
    if protocol == "sixel":
        return sixel(image)
    found = io.BytesIO()
    image.save(found, "PNG")
    if protocol == "kitty":
        return kitty(found.getvalue(), columns, rows)
    return iterm2(found.getvalue(), columns, rows)


def kitty(png: bytes, columns: int, rows: int) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: a PNG, shown at once, no reply wanted."""
    text = base64.b64encode(png).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    first = f"a=T,f=100,q=2,c={columns},r={rows},"
    return "".join(
        f"\x1b_G{'' if number else first}m={int(number + 1 < len(chunks))};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def iterm2(png: bytes, columns: int, rows: int) -> str:
    """https://iterm2.com/documentation-images.html: OSC 1337, the size in cells."""
    size = f"size={len(png)};width={columns};height={rows};preserveAspectRatio=1"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(png).decode()}\x07"


def sixel(image: "Image") -> str:
    """DEC's sixel (VT330/VT340 manual, chapter 14): bands of six rows, one pass for each colour."""
    reduced = image.convert("RGB").quantize(_COLOURS)
    palette = reduced.getpalette() or []
    width, height = reduced.size
    pixels = reduced.tobytes()
    registers = "".join(
        f"#{number};2;"
        + ";".join(str(round(part * 100 / 255)) for part in palette[3 * number :][:3])
        for number in sorted(set(pixels))
    )
    bands = (
        _band([pixels[(top + row) * width : (top + row + 1) * width] for row in range(6)])
        for top in range(0, height, 6)
    )
    # 1: what is not painted keeps the terminal's colour. The raster is 1 : 1 pixels.
    return f'\x1bP0;1;0q"1;1;{width};{height}{registers}{"-".join(bands)}\x1b\\'


def _band(rows: list[bytes]) -> str:
    """Six rows of pixels; rows below the end of the image are empty."""
    colours = sorted(set().union(*rows))
    return "$".join(f"#{colour}{_packed(_sixels(rows, colour))}" for colour in colours)


def _sixels(rows: list[bytes], colour: int) -> bytes:
    """For each column, which of the six rows have the colour: bit 0 is the top row."""
    bits = 0
    for number, row in enumerate(rows):
        # Arithmetic on whole rows: a loop over pixels takes seconds.
        chosen = row.translate(bytes(1 << number if one == colour else 0 for one in range(256)))
        bits |= int.from_bytes(chosen, "big")
    return bits.to_bytes(max(map(len, rows)), "big") if rows else b""


def _packed(sixels: bytes) -> str:
    """Characters with repeats as `!count`; what is empty at the end is left out."""
    return "".join(_repeats(sixels.rstrip(b"\0")))


def _repeats(sixels: bytes) -> Iterator[str]:
    start = 0
    for end in range(1, len(sixels) + 1):
        if end == len(sixels) or sixels[end] != sixels[start]:
            letter, count = chr(63 + sixels[start]), end - start
            yield f"!{count}{letter}" if count > 3 else letter * count
            start = end
