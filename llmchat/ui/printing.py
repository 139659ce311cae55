"""Print the program's own lines: wrapped at words, notes and hints dim, errors red.

Does not print answers; see `renderer`.
"""

import re
from typing import TextIO
from urllib.parse import quote

from llmchat.errors import LlmchatError, shortened
from llmchat.output.terminal_text import fit_for, has_colours, has_palette, has_styles
from llmchat.settings import World
from llmchat.ui.hyperlinks import has_hyperlinks

_DIM, _RED, _END = "\x1b[2m", "\x1b[31m", "\x1b[0m"
_BOLD_TEAL, _BOLD_CYAN = "\x1b[1;38;5;30m", "\x1b[1;36m"
# What an address may have unescaped; everything else could end the escape sequence.
_OF_URLS = "%/:=&?~#+!$,;'@()*[]"
# Two blanks or more separate columns; a wrapped line continues under the last one.
_COLUMNS = re.compile(r"\s*(?:\S+(?: \S+)*\s{2,})*")


def print_text(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a text; on a terminal, without control characters and at most `width` cells wide."""
    _write(world, text, width, stream or world.stdout, "")


def print_note(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a text dimmed, where the terminal can."""
    out = stream or world.stdout
    _write(world, text, width, out, _DIM if has_styles(world, out) else "")


def print_link(world: World, text: str, url: str, width: int, stream: TextIO | None = None) -> None:
    """Print a dimmed text that a click opens, where the terminal knows hyperlinks (OSC 8).

    An empty url makes it a note.
    """
    out = stream or world.stdout
    if not (url and has_styles(world, out) and has_hyperlinks(world.env)):
        return print_note(world, text, width, out)
    start, end = f"\x1b]8;;{quote(url, safe=_OF_URLS)}\x1b\\", "\x1b]8;;\x1b\\"
    _write(world, text, width, out, _DIM + start, end + _END)


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
    style = _RED if has_colours(world, out) else ""
    _write(world, f"error: {shortened(error.message)}", width, out, style)
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
    if not has_colours(world):
        return "> "
    return f"{_BOLD_TEAL if has_palette(world) else _BOLD_CYAN}>{_END} "


def _write(world: World, text: str, width: int, out: TextIO, style: str, end: str = _END) -> None:
    rows = fit_for(out, text).split("\n")
    if out.isatty():
        rows = [row for line in rows for row in wrap_line(line, width)]
    styled = (f"{style}{row}{end}" if style and row else row for row in rows)
    print("\n".join(styled), file=out, flush=True)
