"""Lay out Markdown as rows of styled text at a width.

The rows of a finished line never change, whatever text follows.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
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
from rich.console import Console
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

from llmchat.ui import table_layout, themes
from llmchat.ui.code_blocks import language, parser
from llmchat.ui.themes import Theme
from llmchat.ui.themes.style import rich_style
from llmchat.ui.wrapping import fitted, wrapped

_MARKS = {"strong": "strong", "em": "emphasis", "s": "strike"}
# Tokens of Pygments → roles of a theme. A token without one has that of the kind above it.
_TOKENS = {
    Comment: "comment",
    Keyword: "keyword",
    Keyword.Constant: "constant",
    Operator: "operator",
    Operator.Word: "keyword",
    String: "string",
    Number: "number",
    Name.Builtin: "builtin",
    Name.Function: "function",
    Name.Class: "type",
    Name.Decorator: "decorator",
    Name.Tag: "tag",
    Generic.Deleted: "deleted",
    Generic.Inserted: "inserted",
    Generic.Heading: "function",
    Generic.Subheading: "comment",
}
_LINK_ID = re.compile(r"\x1b]8;id=[^;]*;")
_NARROWEST = 8
_BARE_CELL = re.compile(r"(?P<cell>(?:\\.|[^|\\])*)(?:\||$)")
_CELL = re.compile(r"(?P<cell>(?:(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|\\.|[^|\\])*)(?:\||$)")


class MarkdownOptions(NamedTuple):
    """The styles, and the number of the first code block (0: no numbers).

    theme: with what the terminal can show; links: OSC 8 hyperlinks.
    """

    theme: Theme = themes.at_depth(themes.find_theme("auto"), 8)
    links: bool = False
    first: int = 0


DEFAULT_OPTIONS = MarkdownOptions()


def rows_of(markdown: str, width: int, options: MarkdownOptions = DEFAULT_OPTIONS) -> list[Text]:
    """Lay out a text at a width, without blank rows at its start and end."""
    layout = _Layout(markdown.split("\n"), options)
    return layout.blocks(SyntaxTreeNode(parser().parse(markdown)).children, max(width, 4))


def paint(rows: Sequence[Text]) -> list[str]:
    """Render rows as strings with control sequences; their styles are what the terminal shows."""
    console = Console(
        width=10_000,
        force_terminal=True,
        legacy_windows=False,
        color_system="truecolor",
        no_color=False,
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

    def _style(self, role: str) -> Style:
        return rich_style(getattr(self._options.theme, role))

    def blocks(self, nodes: Sequence[SyntaxTreeNode], width: int) -> list[Text]:
        rows: list[Text] = []
        for node in nodes:
            added = [piece for row in self._block(node, width) for piece in fitted(row, width)]
            rows += [Text(), *added] if rows and not _follows_closely(node) else added
        return rows

    def _block(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        match node.type:
            case "heading":
                role = "heading_1" if node.tag == "h1" else "heading"
                return wrapped(self._inline(node, self._style(role)), width)
            case "fence":
                return self._fence(node, width)
            case "code_block":
                return _code(node.content, "text", width, self._options.theme)
            case "bullet_list" | "ordered_list":
                return self._list(node, width)
            case "blockquote":
                inner = self.blocks(node.children, max(width - 2, _NARROWEST)) or [Text()]
                for row in inner:
                    row.stylize_before(self._style("quote"))
                return [Text("▌ ", self._style("quote_mark")) + row for row in inner]
            case "hr":
                return [Text("─" * width, self._style("rule"))]
            case "table":
                return self._table(node, width)
            case _:
                return wrapped(self._inline(node, Style()), width)

    def _fence(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        name = language(node.info)
        title = f"── {name or 'code'}" + (f" [{self._number}]" if self._number else "")
        self._number += bool(self._number)
        rows = _code(node.content, name or "text", width, self._options.theme)
        return [Text(title, self._style("label")), *rows]

    def _list(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        rows: list[Text] = []
        number = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
        for item in node.children:
            mark = "• " if number is None else f"{number}{node.markup} "
            inner = self.blocks(item.children, max(width - len(mark), _NARROWEST)) or [Text()]
            rows += [
                (Text(" " * len(mark)) if index else Text(mark, self._style("bullet"))) + row
                for index, row in enumerate(inner)
            ]
            number = None if number is None else number + 1
        return rows

    def _table(self, node: SyntaxTreeNode, width: int) -> list[Text]:
        head, *rest = [row for part in node.children for row in part.children]
        aligned = ["right" in str(cell.attrs.get("style", "")) for cell in head.children]
        titles = [self._inline(cell, self._style("table_head")) for cell in head.children]
        body = [self._cells(row) for row in rest]
        return table_layout.rows(titles, body, aligned, width, self._style("rule"))

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
                return Text(node.content, style + self._style("code"))
            case "link":
                return self._link(node.children, str(node.attrs.get("href", "")), style)
            case "image":
                return self._image(node, style)
            case "strong" | "em" | "s":
                return self._spans(node.children, style + self._style(_MARKS[node.type]))
            case _:
                return Text(node.content, style)

    def _link(self, nodes: Sequence[SyntaxTreeNode], url: str, style: Style) -> Text:
        target = self._style("link") + Style(link=url if self._options.links else None)
        label = self._spans(nodes, style + target)
        if self._options.links or unquote(url).removeprefix("mailto:") == label.plain:
            return label
        return label.append(f" ({url})" if label.plain else url, self._style("address"))

    def _image(self, node: SyntaxTreeNode, style: Style) -> Text:
        link = self._link(node.children or [], str(node.attrs.get("src", "")), style)
        return Text("image: ", self._style("label")) + link


def _code(content: str, lexer: str, width: int, theme: Theme) -> list[Text]:
    """Code line by line, without a frame, so that it can be copied from the screen."""
    content = content.rstrip().expandtabs(4)
    if not content:
        return []
    highlighted = Syntax("", lexer, theme=_syntax_theme(theme)).highlight(content).split("\n")
    lines = list(highlighted)[: content.count("\n") + 1]
    return [piece for line in lines for piece in fitted(line, width)]


@lru_cache(maxsize=8)
def _syntax_theme(theme: Theme) -> ANSISyntaxTheme:
    """The styles of tokens; what no theme colours, such as an error, is plain."""
    styles = {token: rich_style(getattr(theme, role)) for token, role in _TOKENS.items()}
    return ANSISyntaxTheme({Token: Style(), Error: Style(), **styles})


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
