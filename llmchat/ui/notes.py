"""Lines that are not the model's: folded at words, notes and hints dim, errors red where the terminal can show it."""

import re
from typing import TextIO

from llmchat.errors import LlmchatError, shortened
from llmchat.settings import World
from llmchat.terminal_text import fit_for, has_colours, has_palette, has_styles

_DIM, _RED, _END = "\x1b[2m", "\x1b[31m", "\x1b[0m"
# Two blanks or more separate columns; a folded line goes on under the last one.
_COLUMNS = re.compile(r"\s*(?:\S+(?: \S+)*\s{2,})*")


def say(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    """Print a text. On a terminal no line of it is wider than `width` cells, and it cannot drive the terminal."""
    _write(world, text, width, stream or world.stdout, "")


def note(world: World, text: str, width: int, stream: TextIO | None = None) -> None:
    out = stream or world.stdout
    _write(world, text, width, out, _DIM if has_styles(world, out) else "")


def question(world: World, text: str, width: int) -> None:
    """A line that was asked, behind the mark of the input line."""
    colour = (
        ("\x1b[1;38;5;30m" if has_palette(world) else "\x1b[1;36m") if has_colours(world) else ""
    )
    rows = (
        folded(fit_for(world.stdout, text), max(width - 2, 1)) if world.stdout.isatty() else [text]
    )
    mark = f"{colour}>{_END} " if colour else "> "
    print(
        "\n".join(("  " if index else mark) + row for index, row in enumerate(rows)),
        file=world.stdout,
        flush=True,
    )


def tell(world: World, error: LlmchatError, width: int, stream: TextIO | None = None) -> None:
    """An error and its way out."""
    out = stream or world.stdout
    _write(
        world,
        f"error: {shortened(error.message)}",
        width,
        out,
        _RED if has_colours(world, out) else "",
    )
    if error.hint:
        note(world, f"hint: {shortened(error.hint)}", width, out)


def folded(line: str, width: int) -> list[str]:
    """One line as rows of `width` cells, folded at words. What stands in columns goes on under its last column."""
    from rich.cells import cell_len
    from rich.text import Text

    from llmchat.ui.wrapping import wrapped

    if cell_len(line) <= width:
        return [line]
    match = _COLUMNS.match(line)
    indent = (
        match.end() if match and match.end() <= width * 3 // 5 else len(line) - len(line.lstrip())
    )
    rows = wrapped(Text(line[indent:]), max(width - cell_len(line[:indent]), 1))
    return [
        (line[:indent] if index == 0 else " " * cell_len(line[:indent])) + row.plain
        for index, row in enumerate(rows)
    ]


def _write(world: World, text: str, width: int, out: TextIO, style: str) -> None:
    rows = [
        row
        for line in fit_for(out, text).split("\n")
        for row in (folded(line, width) if out.isatty() else [line])
    ]
    print(
        "\n".join(f"{style}{row}{_END}" if style and row else row for row in rows),
        file=out,
        flush=True,
    )
