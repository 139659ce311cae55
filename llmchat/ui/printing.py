"""Print the program's own lines: wrapped at words, in the styles of the theme.

Does not print answers; see `renderer`.
"""

import re
from typing import TextIO
from urllib.parse import quote

from llmchat.errors import LlmchatError, shortened
from llmchat.output.terminal_text import fit_for, has_styles
from llmchat.settings import World
from llmchat.ui import themes
from llmchat.ui.hyperlinks import has_hyperlinks
from llmchat.ui.themes import Style

# What an address may have unescaped; everything else could end the escape sequence.
_OF_URLS = "%/:=&?~#+!$,;'@()*[]"
# Two blanks or more separate columns; a wrapped line continues under the last one.
_COLUMNS = re.compile(r"\s*(?:\S+(?: \S+)*\s{2,})*")


def print_text(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a text; on a terminal, without control characters and at most `width` cells wide."""
    _write(text, width, stream or world.stdout, Style())


def print_note(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a note, a hint or progress; dim in most themes."""
    out = stream or world.stdout
    _write(text, width, out, themes.current(world, out).note)


def print_tool_line(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a line about a tool call."""
    out = stream or world.stdout
    _write(text, width, out, themes.current(world, out).tool)


def print_status(world: World, text: str, width: int) -> None:
    """Print a line as the bottom line of a chat is drawn."""
    _write(text, width, world.stdout, themes.current(world).status)


def print_link(world: World, text: str, url: str, width: int, stream: TextIO | None = None) -> None:
    """Print a note that a click opens, where the terminal knows hyperlinks (OSC 8).

    Without a url it is a plain note.
    """
    out = stream or world.stdout
    if not (url and has_styles(world, out) and has_hyperlinks(world.env)):
        return print_note(world, text, width, out)
    link = f"\x1b]8;;{quote(url, safe=_OF_URLS)}\x1b\\", "\x1b]8;;\x1b\\"
    _write(text, width, out, themes.current(world, out).note, link)


def print_question(world: World, text: str, width: int) -> None:
    """Print a line of an earlier question behind the prompt mark `>`."""
    rows = [text]
    if world.stdout.isatty():
        rows = wrap_line(fit_for(world.stdout, text), max(width - 2, 1))
    print("\n".join([_prompt_mark(world) + rows[0], *(f"  {row}" for row in rows[1:])]),
          file=world.stdout, flush=True)  # fmt: skip


def print_error(
    world: World, error: LlmchatError, width: int, stream: TextIO | None = None
) -> None:
    """Print an error and its hint."""
    out = stream or world.stdout
    style = themes.current(world, out).error
    _write(f"error: {shortened(error.message)}", width, out, style)
    if error.hint:
        print_note(world, f"hint: {shortened(error.hint)}", width, out)


def wrap_line(line: str, width: int) -> list[str]:
    """Wrap one line at words into rows of `width` cells.

    The further rows of a line with columns are indented to its last column.
    """
    from rich.cells import cell_len
    from rich.text import Text

    from llmchat.ui.wrapping import wrapped

    if cell_len(line) <= width:
        return [line]
    indent = _indent(line, width)
    indent_cells = cell_len(line[:indent])
    rows = [row.plain for row in wrapped(Text(line[indent:]), max(width - indent_cells, 1))]
    return [line[:indent] + rows[0], *(" " * indent_cells + row for row in rows[1:])]


def _indent(line: str, width: int) -> int:
    """Offset of the last column, or of the text where the last column would be too narrow."""
    columns = _COLUMNS.match(line)
    if columns and columns.end() <= width * 3 // 5:
        return columns.end()
    return len(line) - len(line.lstrip())


def _prompt_mark(world: World) -> str:
    style = themes.current(world).prompt
    return f"{style.start}>{style.end} "


def _write(
    text: str, width: int, out: TextIO, style: Style, link: tuple[str, str] = ("", "")
) -> None:
    """link: what begins and ends a hyperlink."""
    rows = fit_for(out, text).split("\n")
    if out.isatty():
        rows = [row for line in rows for row in wrap_line(line, width)]
    start, end = style.start + link[0], link[1] + style.end
    print("\n".join(f"{start}{row}{end}" if row else row for row in rows), file=out, flush=True)
