"""Lay out Markdown as rows of styled text at a width.

The rows of a finished line never change, whatever text follows.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote

from markdown_it.tree import SyntaxTreeNode
from pygments.token import (
    Comment,
    Error,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    String,
    Token,
)
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

from llmchat.ui import table_layout
from llmchat.ui.code_blocks import language, parser
from llmchat.ui.wrapping import fitted, wrapped

# Colours with a contrast of at least 3:1 on white and on #1e1e1e, and no backgrounds. They are from
# the 256-colour palette, which themes do not change; terminals with 8 colours show the nearest.
_TEAL, _GREEN, _MAGENTA, _RED = (Color.from_ansi(code) for code in (30, 28, 163, 160))
_CODE, _DIM, _BOLD = Style(color=_TEAL), Style(dim=True), Style(bold=True)
_MARKS = {"strong": _BOLD, "em": Style(italic=True), "s": Style(strike=True)}
_THEME = ANSISyntaxTheme(
    {
        Token: Style(),
        Error: Style(),
        Comment: _DIM,
        Keyword: Style(color=_MAGENTA),
        Operator.Word: Style(color=_MAGENTA),
        String: Style(color=_GREEN),
        Number: Style(color=_TEAL),
        Name.Function: _BOLD,
        Name.Class: _BOLD,
        Name.Decorator: Style(color=_MAGENTA),
        Name.Tag: Style(color=_MAGENTA),
        Generic.Deleted: Style(color=_RED),
        Generic.Inserted: Style(color=_GREEN),
        Generic.Heading: _BOLD,
        Generic.Subheading: _DIM,
    }
)
_LINK_ID = re.compile(r"\x1b]8;id=[^;]*;")
_NARROWEST = 8
_BARE_CELL = re.compile(r"(?P<cell>(?:\\.|[^|\\])*)(?:\||$)")
_CELL = re.compile(r"(?P<cell>(?:(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|\\.|[^|\\])*)(?:\||$)")


class MarkdownOptions(NamedTuple):
    """What the terminal supports, and the number of the first code block (0: no numbers).

    colour: any colours; links: OSC 8 hyperlinks; palette: 256 colours.
    """

    colour: bool = True
    links: bool = False
    first: int = 0
    palette: bool = False


DEFAULT_OPTIONS = MarkdownOptions()


def rows_of(markdown: str, width: int, options: MarkdownOptions = DEFAULT_OPTIONS) -> list[Text]:
    """Lay out a text at a width, without blank rows at its start and end."""
    layout = _Layout(markdown.split("\n"), options)
    return layout.blocks(SyntaxTreeNode(parser().parse(markdown)).children, max(width, 4))


def paint(rows: Sequence[Text], *, colour: bool = True, palette: bool = False) -> list[str]:
    """Render rows as strings with control sequences."""
    system: Literal["256", "standard"] = "256" if palette else "standard"
    console = Console(
        width=10_000,
        force_terminal=True,
        legacy_windows=False,
        color_system=system,
        no_color=not colour,
        _environ={},
    )
    with console.capture() as captured:
        for row in rows:
            console.print(row, soft_wrap=True, markup=False, emoji=False, highlight=False)
    # rich gives links random ids; equal rows must be equal strings.
    return _LINK_ID.sub("\x1b]8;;", captured.get()).split("\n")[:-1]


class _Layout:
    """Turns blocks into rows.

    Keeps the source lines, for table cells that the parser drops, and the next block's number.
    """

    def __init__(self, lines: Sequence[str], options: MarkdownOptions):
        self._lines = lines
        self._options = options
        self._number = options.first

    def blocks(self, nodes: Sequence[SyntaxTreeNode], width: int) -> list[Text]:
        rows: list[Text] = []
        for node in nodes:
            added = [piece for row in self._block(node, width) for piece in fitted(row, width)]
            rows += [Text(), *added] if rows and not _follows_closely(node) else added
        return rows

    def _block(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        match node.type:
            case "heading":
                style = Style(bold=True, underline=node.tag == "h1")
                return wrapped(self._inline(node, style), width)
            case "fence":
                return self._fence(node, width)
            case "code_block":
                return _code(node.content, "text", width)
            case "bullet_list" | "ordered_list":
                return self._list(node, width)
            case "blockquote":
                inner = self.blocks(node.children, max(width - 2, _NARROWEST)) or [Text()]
                return [Text("▌ ", _DIM) + row for row in inner]
            case "hr":
                return [Text("─" * width, _DIM)]
            case "table":
                return self._table(node, width)
            case _:
                return wrapped(self._inline(node, Style()), width)

    def _fence(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        name = language(node.info)
        title = f"── {name or 'code'}" + (f" [{self._number}]" if self._number else "")
        self._number += bool(self._number)
        return [Text(title, _DIM), *_code(node.content, name or "text", width)]

    def _list(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        rows: list[Text] = []
        number = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
        for item in node.children:
            mark = "• " if number is None else f"{number}{node.markup} "
            inner = self.blocks(item.children, max(width - len(mark), _NARROWEST)) or [Text()]
            rows += [
                Text(mark if index == 0 else " " * len(mark)) + row
                for index, row in enumerate(inner)
            ]
            number = None if number is None else number + 1
        return rows

    def _table(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        head, *rest = [row for part in node.children for row in part.children]
        aligned = ["right" in str(cell.attrs.get("style", "")) for cell in head.children]
        titles = [self._inline(cell, _BOLD) for cell in head.children]
        return table_layout.rows(titles, [self._cells(row) for row in rest], aligned, width)

    def _cells(self, row: SyntaxTreeNode) -> list[Text]:
        """The cells of a table row.

        The parser takes a `|` inside code for a border, and then drops the surplus cells.
        """
        source = self._lines[row.map[0]] if row.map else ""
        count = len(row.children)
        if len(_split(source, code=False)) <= count:
            return [self._inline(cell, Style()) for cell in row.children]
        cells = _split(source)
        padding = [""] * (count - len(cells))
        cells = [*cells[: count - 1], " | ".join(cells[count - 1 :]), *padding]
        inlines = [SyntaxTreeNode(parser().parseInline(cell)).children[0] for cell in cells]
        return [self._spans(inline.children, Style()) for inline in inlines]

    def _inline(self, node: SyntaxTreeNode, style: Style) -> Text:
        return Text().join(self._spans(child.children, style) for child in node.children)

    def _spans(self, nodes: Sequence[SyntaxTreeNode], style: Style) -> Text:
        text = Text()
        for node in nodes:
            text.append_text(self._span(node, style))
        return text

    def _span(self, node: SyntaxTreeNode, style: Style) -> Text:
        match node.type:
            case "softbreak" | "hardbreak":
                return Text("\n")
            case "code_inline":
                return Text(node.content, style + _CODE)
            case "link":
                return self._link(node.children, str(node.attrs.get("href", "")), style)
            case "image":
                return self._image(node, style)
            case "strong" | "em" | "s":
                return self._spans(node.children, style + _MARKS[node.type])
            case _:
                return Text(node.content, style)

    def _link(self, nodes: Sequence[SyntaxTreeNode], url: str, style: Style) -> Text:
        target = Style(underline=True, link=url if self._options.links else None)
        label = self._spans(nodes, style + target)
        if self._options.links or unquote(url).removeprefix("mailto:") == label.plain:
            return label
        return label.append(f" ({url})" if label.plain else url, _DIM)

    def _image(self, node: SyntaxTreeNode, style: Style) -> Text:
        link = self._link(node.children or [], str(node.attrs.get("src", "")), style)
        return Text("image: ", _DIM) + link


def _code(content: str, lexer: str, width: int) -> list[Text]:
    """Code line by line, without a frame, so that it can be copied from the screen."""
    content = content.rstrip().expandtabs(4)
    if not content:
        return []
    highlighted = Syntax("", lexer, theme=_THEME).highlight(content).split("\n")
    lines = list(highlighted)[: content.count("\n") + 1]
    return [piece for line in lines for piece in fitted(line, width)]


def _follows_closely(node: SyntaxTreeNode) -> bool:
    """Whether a block follows without a blank row, as a list inside a list item does."""
    return bool(node.parent and node.parent.type == "list_item" and node.type.endswith("_list"))


def _split(line: str, *, code: bool = True) -> list[str]:
    """The cells of a table's line. code: treat a `|` inside a code span as text."""
    line = line.strip()
    body = line.lstrip("> ")
    cells = [match["cell"].strip() for match in (_CELL if code else _BARE_CELL).finditer(body)]
    if body.startswith("|"):
        cells = cells[1:]
    return cells[:-1] if cells and not cells[-1] else cells
