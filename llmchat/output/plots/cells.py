"""Rows of terminal cells: styled pieces of text, a canvas of braille dots, widths of labels."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

# SGR codes of the eight colours of curves: those of every terminal's own palette, dark or light.
_COLOURS = ("36", "33", "35", "32", "34", "31", "96", "93")
DIM, BOLD, PLAIN = "2", "1", ""

# (text, SGR code), from left to right.
Row = list[tuple[str, str]]


class Glyphs(Struct, frozen=True):
    """The characters that a stream can show."""

    marks: str
    bar: str
    part: str
    """Eighths of a filled cell, from an eighth to a whole."""
    whisker: str
    low: str
    high: str
    value: str
    axis: tuple[str, str, str, str, str]
    """Vertical axis, its tick, corner, horizontal axis, its tick."""
    ellipsis: str
    braille: bool


UNICODE = Glyphs(
    "●■▲◆▼○□△", "━", "▏▎▍▌▋▊▉█", "─", "├", "┤", "●", ("│", "┤", "└", "─", "┬"), "…", True
)  # fmt: skip
ASCII = Glyphs("ox+#*@%&", "=", "#", "-", "|", "|", "o", ("|", "+", "+", "-", "+"), "~", False)


def colour(index: int) -> str:
    """The SGR code of a curve."""
    return _COLOURS[index % len(_COLOURS)]


def to_text(rows: Sequence[Row], *, colours: bool, styles: bool) -> str:
    """Rows as text; colours, styles: whether codes for colours and for bold and dim are used."""
    return "\n".join(_line(row, colours, styles) for row in rows)


def _line(row: Row, colours: bool, styles: bool) -> str:
    text = "".join(
        f"\x1b[{code}m{piece}\x1b[0m" if _is_used(code, colours, styles) and piece else piece
        for piece, code in row
    )
    return text.rstrip()


def _is_used(code: str, colours: bool, styles: bool) -> bool:
    return bool(code) and (styles if code in (DIM, BOLD) else colours)


def width_of(text: str) -> int:
    """The cells that a text takes; two for each CJK character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int, ellipsis: str) -> str:
    """A text of at most `width` cells, cut in the middle: names differ at their ends."""
    if width_of(text) <= width:
        return text
    if width <= 1:
        return ellipsis[:width]
    left, right = (width - 1) // 2, width - 1 - (width - 1) // 2
    return _start(text, left) + ellipsis + _start(text[::-1], right)[::-1]


def padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def _start(text: str, width: int) -> str:
    found = ""
    for letter in text:
        if width_of(found + letter) > width:
            break
        found += letter
    return found


# The bits of the dots of a braille cell by column and row (Unicode 16.0, block 2800).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


class Canvas:
    """Cells on which curves are drawn: 2 × 4 dots each in braille, one character each in ASCII."""

    def __init__(self, columns: int, rows: int, *, braille: bool):
        self.columns, self.rows, self._braille = columns, rows, braille
        self._cells: list[list[tuple[int | str, str]]] = [
            [(0, PLAIN)] * columns for _ in range(rows)
        ]
        self.width, self.height = (columns * 2, rows * 4) if braille else (columns, rows)

    def line(self, start: tuple[int, int], end: tuple[int, int], mark: str, code: str) -> None:
        """A straight line of dots; (0, 0) is at the top left."""
        for x, y in _steps(start, end):
            self._dot(x, y, mark, code)

    def put(self, x: int, y: int, mark: str, code: str) -> None:
        """A character in the cell of a dot."""
        self._cells[self._row(y)][self._column(x)] = (mark, code)

    def lines(self) -> Iterator[Row]:
        """The rows from top to bottom, neighbours of one style joined."""
        for cells in self._cells:
            row: Row = []
            for content, code in cells:
                text = content if isinstance(content, str) else _braille(content)
                if row and row[-1][1] == code:
                    row[-1] = (row[-1][0] + text, code)
                else:
                    row.append((text, code))
            yield row

    def _dot(self, x: int, y: int, mark: str, code: str) -> None:
        if not self._braille:
            return self.put(x, y, mark, code)
        row, column = self._row(y), self._column(x)
        content, _ = self._cells[row][column]
        if isinstance(content, int):
            self._cells[row][column] = (content | _BITS[x % 2][y % 4], code)

    def _row(self, y: int) -> int:
        return y // 4 if self._braille else y

    def _column(self, x: int) -> int:
        return x // 2 if self._braille else x


def _braille(bits: int) -> str:
    return chr(0x2800 + bits) if bits else " "


def _steps(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots of a line, without a gap (a digital differential analyser)."""
    (x, y), (to_x, to_y) = start, end
    count = max(abs(to_x - x), abs(to_y - y))
    for step in range(count + 1):
        part = step / count if count else 0.0
        yield round(x + (to_x - x) * part), round(y + (to_y - y) * part)
