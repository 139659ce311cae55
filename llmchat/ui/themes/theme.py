"""A theme: a style for each part of what llmchat draws."""

from functools import lru_cache
from typing import Literal

from msgspec import Struct
from msgspec.structs import fields

from llmchat.ui.themes.style import Style, shown_with

Background = Literal["light", "dark", "any"]
PLAIN_STYLE = Style()


class Theme(Struct, frozen=True):
    """The styles, and what the theme is made for.

    paper: the background on which the colours were chosen, as #rrggbb.
    """

    name: str = "plain"
    description: str = ""
    background: Background = "any"
    paper: str = ""

    heading_1: Style = PLAIN_STYLE
    """Headings of the first level."""
    heading: Style = PLAIN_STYLE
    """Other headings."""
    strong: Style = PLAIN_STYLE
    """`**strong**` text."""
    emphasis: Style = PLAIN_STYLE
    """`*emphasised*` text."""
    strike: Style = PLAIN_STYLE
    """`~~struck~~` text."""
    code: Style = PLAIN_STYLE
    """Code within a line."""
    link: Style = PLAIN_STYLE
    """The text of a link."""
    address: Style = PLAIN_STYLE
    """The address of a link, where it is printed."""
    quote: Style = PLAIN_STYLE
    """The text of a quote."""
    quote_mark: Style = PLAIN_STYLE
    """The bar before a quote."""
    bullet: Style = PLAIN_STYLE
    """The mark or the number of a list item."""
    table_head: Style = PLAIN_STYLE
    """The first row of a table."""
    rule: Style = PLAIN_STYLE
    """Rules, also those of tables."""
    label: Style = PLAIN_STYLE
    """The line above a code block: its language and its number."""

    keyword: Style = PLAIN_STYLE
    """Code: `def`, `return`."""
    string: Style = PLAIN_STYLE
    """Code: strings."""
    number: Style = PLAIN_STYLE
    """Code: numbers."""
    constant: Style = PLAIN_STYLE
    """Code: `True`, `null`."""
    comment: Style = PLAIN_STYLE
    """Code: comments."""
    function: Style = PLAIN_STYLE
    """Code: the name of a function where it is defined."""
    type: Style = PLAIN_STYLE
    """Code: classes and types."""
    builtin: Style = PLAIN_STYLE
    """Code: what the language brings, such as `len`."""
    operator: Style = PLAIN_STYLE
    """Code: `+`, `=`."""
    decorator: Style = PLAIN_STYLE
    """Code: `@decorator`."""
    tag: Style = PLAIN_STYLE
    """Code: tags of HTML, keys of YAML and JSON."""
    inserted: Style = PLAIN_STYLE
    """Lines that a diff adds."""
    deleted: Style = PLAIN_STYLE
    """Lines that a diff removes."""

    thought: Style = PLAIN_STYLE
    """The model's thinking, and summaries."""
    tool: Style = PLAIN_STYLE
    """Tool calls and their results."""
    note: Style = PLAIN_STYLE
    """Notes, hints and progress."""
    error: Style = PLAIN_STYLE
    """Errors."""
    prompt: Style = PLAIN_STYLE
    """The mark `>` before what you type."""
    status: Style = PLAIN_STYLE
    """The bottom line."""
    menu: Style = PLAIN_STYLE
    """Completions."""
    menu_meta: Style = PLAIN_STYLE
    """What a completion means."""
    selected: Style = PLAIN_STYLE
    """The chosen row of a list or a menu."""
    match: Style = PLAIN_STYLE
    """Letters that a search found."""


# The fields that are styles: the keys of a file.
ROLES = tuple(field.name for field in fields(Theme) if field.type is Style)


@lru_cache(maxsize=64)
def at_depth(theme: Theme, colours: int) -> Theme:
    """The theme with what a terminal of so many colours can show."""
    styles = {role: shown_with(getattr(theme, role), colours) for role in ROLES}
    return Theme(theme.name, theme.description, theme.background, theme.paper, **styles)
