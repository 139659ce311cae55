"""Where a plot goes: characters or an image on a terminal, or a file."""

import importlib.util
import os
from pathlib import Path
from typing import Literal, TextIO, get_args

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.output.plots.cells import ASCII, UNICODE, Glyphs, to_text
from llmchat.output.plots.figures import Figure
from llmchat.output.plots.terminal_query import ImageTerminal, find
from llmchat.output.plots.text import NARROWEST, figure_rows
from llmchat.output.terminal_text import harmless, has_colours, has_styles
from llmchat.settings import World, resolve

Kind = Literal["auto", "text", "image", "none"]
_ENDINGS = (".png", ".svg")
# An image has the width of a terminal, but no more than is needed to read it.
_WIDEST = 90
# Logical pixels of a picture for each column of the terminal: text has the terminal's size.
_PER_COLUMN = 7.8
# More charts than this are shown on a terminal only when asked for.
_MOST_CHARTS = 6
_INSTALL = "pip install 'llmchat[plots]'"


class Wish(Struct, frozen=True):
    """Where the user wants plots: in the way of `kind`, or in a file."""

    kind: Kind = "auto"
    file: Path | None = None


def wish(word: str | None, world: World, stream: TextIO, *, quiet: bool = False) -> Wish:
    """Read `--plot`; without it the variable or the config file decides, or none if `quiet`.

    Checks before any work that it can be fulfilled. Raises UsageError for an unknown word, a file
    that cannot be written, a PNG without Pillow, and a terminal that shows no images.
    """
    if not word and quiet:
        return Wish("none")
    if not word:
        return Wish(resolve(world, {}).options.plot)
    if word in get_args(Kind):
        if word == "image":
            _require_images(world, stream)
        return Wish(word)  # type: ignore[arg-type]
    if Path(word).suffix.lower() not in _ENDINGS:
        raise UsageError(
            f"--plot must be auto, text, image, none, or a .png or .svg file, not `{word}`"
        )
    return Wish("none", writable(word))


def writable(name: str) -> Path:
    """The file that a figure is to be written to.

    Raises UsageError for another ending, a file that cannot be written, and a PNG without Pillow.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"`{name}` is not the name of a file .png or .svg")
    if path.suffix.lower() == ".png":
        _require_pillow("PNG files")
    is_new = not path.exists()
    if not is_new and not path.is_file():
        # Opening a pipe waits for a reader.
        raise UsageError(f"{name} is not a regular file")
    try:
        path.open("ab").close()
        if is_new:
            # An error before the plot leaves no empty file.
            path.unlink()
    except OSError as error:
        raise UsageError(f"{name} cannot be written: {error.strerror}") from error
    return path


def show(figure: Figure, wanted: Wish, world: World, stream: TextIO) -> None:
    """Write a figure as wished. Without a wish only a terminal gets one, and only with values."""
    if wanted.file:
        wanted.file.write_bytes(file_bytes(figure, wanted.file.suffix))
        print(f"plot:    {wanted.file}", file=world.stderr)
    if wanted.kind == "none" or (wanted.kind == "auto" and not _is_welcome(figure, stream)):
        return
    print(file=stream)
    _print(figure, wanted, world, stream)


def show_asked(figure: Figure, wanted: Wish, world: World, stream: TextIO) -> None:
    """Write a figure that is the answer of a command: also to a pipe, and whatever its size."""
    if wanted.file:
        return show(figure, wanted, world, stream)
    _print(figure, wanted, world, stream)


def _print(figure: Figure, wanted: Wish, world: World, stream: TextIO) -> None:
    terminal = None
    if wanted.kind != "text" and has_pillow():
        stream.flush()
        terminal = find(world, stream)
    if terminal:
        print(_image(figure, terminal, world, stream), file=stream)
    else:
        print(text(figure, world, stream), file=stream)


def text(figure: Figure, world: World, stream: TextIO) -> str:
    """A figure in characters: those that the stream can show, styled only on a terminal."""
    columns, lines = size(world, stream)
    rows = figure_rows(figure, columns, lines, _glyphs(world, stream))
    if stream.isatty():
        rows = [[(harmless(piece), code) for piece, code in row] for row in rows]
    colours, styles = has_colours(world, stream), has_styles(world, stream)
    return to_text(rows, colours=colours, styles=styles)


def file_bytes(figure: Figure, ending: str) -> bytes:
    """A figure as the file `.svg` or `.png`."""
    if ending.lower() == ".svg":
        from llmchat.output.plots.svg import svg_file

        return svg_file(figure).encode()
    _require_pillow("PNG files")
    from llmchat.output.plots.png import png

    return png(figure)


def size(world: World, stream: TextIO) -> tuple[int, int]:
    """Columns and lines of a stream's terminal; 80 × 24 where there is none."""
    try:
        lines = os.get_terminal_size(stream.fileno()).lines or 24
    except (OSError, ValueError):
        lines = 24
    return max(world.columns, NARROWEST), lines


def _is_welcome(figure: Figure, stream: TextIO) -> bool:
    """Whether a figure is shown without being asked for."""
    return stream.isatty() and figure.compares and len(figure.charts) <= _MOST_CHARTS


def _glyphs(world: World, stream: TextIO) -> Glyphs:
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    return UNICODE if encoding == "utf8" and world.env.get("TERM") != "dumb" else ASCII


def _image(figure: Figure, terminal: ImageTerminal, world: World, stream: TextIO) -> str:
    from llmchat.output.plots.image_protocols import encode
    from llmchat.output.plots.png import image
    from llmchat.output.plots.shapes import DARK, LIGHT

    columns, lines = size(world, stream)
    wide, high = terminal.cell
    columns = min(columns - 1, _WIDEST)
    scale = wide / _PER_COLUMN
    picture = image(figure, columns * _PER_COLUMN, scale, DARK if terminal.dark else LIGHT)
    most = max(lines - 2, 4) * high
    if picture.height > most:
        picture = picture.resize((round(picture.width * most / picture.height), most))
    rows = -(-picture.height // high)
    return encode(picture, terminal.protocol, -(-picture.width // wide), rows)


def has_pillow() -> bool:
    """Whether PNG files and images can be made."""
    return importlib.util.find_spec("PIL") is not None


def _require_images(world: World, stream: TextIO) -> None:
    _require_pillow("images")
    if find(world, stream) is None:
        raise UsageError(
            "this terminal shows no images (kitty, iTerm2 and sixel were tried)"
            if stream.isatty()
            else "the output is not a terminal, so it shows no images",
            "use --plot text or --plot FILE.png",
        )


def _require_pillow(what: str) -> None:
    if not has_pillow():
        raise UsageError(f"{what} require Pillow, which is not installed", _INSTALL)
