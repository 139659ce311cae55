"""Images in a terminal: what is sent decodes to the same pixels, and only to terminals that can."""

import io
import os
import pty
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.sixel_reader import iterm2_image, kitty_images, sixel_image
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.output.plots import showing
from llmchat.output.plots.figures import Bar, BarChart, Figure, LineChart, curve
from llmchat.output.plots.image_protocols import iterm2, kitty, sixel
from llmchat.output.plots.terminal_query import ImageTerminal, is_askable, understood
from llmchat.settings import World

Image = pytest.importorskip("PIL.Image")

FIGURE = Figure(
    "two",
    (
        LineChart("", "step", "loss", (curve("a", [(1, 2.0), (2, 1.0), (9, 0.5)]),)),
        BarChart("decode", "tokens/s", (Bar("x", 3.0, 2.0, 4.0), Bar("y", 1.0))),
    ),
)
DA1_SIXEL = b"\x1b[?62;4;22c"
DA1_PLAIN = b"\x1b[?62;22c"


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


def noise(size: tuple[int, int]) -> Any:
    """A picture that does not compress, so that it needs several chunks."""
    return Image.frombytes("RGB", size, os.urandom(size[0] * size[1] * 3))


def test_kitty_chunks_decode_to_the_png() -> None:
    found = io.BytesIO()
    noise((80, 60)).save(found, "PNG")
    text = kitty(found.getvalue(), 8, 3)
    assert text.count("\x1b_G") > 2
    [(keys, data)] = kitty_images(text)
    assert keys == {"a": "T", "f": "100", "q": "2", "c": "8", "r": "3", "m": "1"}
    assert data == found.getvalue()


def test_one_kitty_chunk_says_that_no_other_follows() -> None:
    [(keys, data)] = kitty_images(kitty(b"abc", 1, 1))
    assert keys["m"] == "0" and data == b"abc"


def test_an_iterm2_image_decodes_to_the_png_and_has_its_size_in_cells() -> None:
    keys, data = iterm2_image(iterm2(b"abcdef", 80, 20))
    assert data == b"abcdef"
    assert keys == {
        "inline": "1", "size": "6", "width": "80", "height": "20", "preserveAspectRatio": "1",
    }  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (7, 6), (40, 13), (300, 25)])
def test_a_sixel_image_decodes_to_its_pixels(size: tuple[int, int]) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (51, 102, 204)]
    picture = Image.new("RGB", size)
    places = [(x, y) for y in range(size[1]) for x in range(size[0])]
    for x, y in places:
        picture.putpixel((x, y), colours[(x // 5 + y // 3) % 4])
    pixels = sixel_image(sixel(picture))
    assert (len(pixels[0]), len(pixels)) == size
    assert all(pixels[y][x] == picture.getpixel((x, y)) for x, y in places)


def test_a_plot_as_sixel_is_close_to_the_plot_in_colour() -> None:
    from llmchat.output.plots.png import image
    from llmchat.output.plots.shapes import DARK

    picture = image(FIGURE, 300, 1.0, DARK)
    pixels = sixel_image(sixel(picture))
    sent = [colour for row in pixels for colour in row if colour]
    drawn = [picture.getpixel((x, y)) for y in range(picture.height) for x in range(picture.width)]
    differences = [
        max(abs(one - other) for one, other in zip(*colours, strict=True))
        for colours in zip(sent, drawn, strict=True)
    ]
    assert sum(differences) / len(differences) < 3 and max(differences) < 90


def test_text_and_lines_are_in_the_png() -> None:
    picture = opened(showing.file_bytes(FIGURE, ".png"))
    assert picture.format == "PNG" and picture.width == 1360
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(255, 255, 255), (0x2F, 0x7F, 0xD1)} <= colours


def world(term: str = "xterm-256color", **env: str) -> World:
    return make_world(Path("/nowhere"), tty=True, TERM=term, **env)


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "foot"}, True),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x"}, True),
        ({"TERM": "screen-256color", "TMUX": "/tmp/x"}, True),
        ({"TERM": "screen-256color"}, False),
        ({"TERM": "xterm-256color", "STY": "1.pts"}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "vt100"}, False),
        ({"TERM": "eterm-color"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_only_terminals_that_ignore_unknown_codes_are_asked(
    env: dict[str, str], asked: bool
) -> None:
    place = make_world(Path("/nowhere"), tty=True, **env)
    assert is_askable(place, place.stdout) is asked
    piped = make_world(Path("/nowhere"), tty=False, **env)
    assert not is_askable(piped, piped.stdout)


@pytest.mark.parametrize(
    ("reply", "protocol"),
    [
        (b"\x1bP>|kitty(0.40.0)\x1b\\" + DA1_PLAIN, "kitty"),
        (b"\x1bP>|ghostty 1.2.0\x1b\\" + DA1_PLAIN, "kitty"),
        (b"\x1bP>|iTerm2 3.6.5\x1b\\" + DA1_SIXEL, "iterm2"),
        (b"\x1bP>|WezTerm 20260101\x1b\\" + DA1_SIXEL, "iterm2"),
        (b"\x1bP>|foot(1.22.0)\x1b\\" + DA1_SIXEL, "sixel"),
        (b"\x1bP>|tmux 3.6\x1b\\" + DA1_SIXEL, "sixel"),
        (DA1_SIXEL, "sixel"),
        (b"\x1bP>|tmux 3.6\x1b\\\x1b[?1;2c", None),
        # The level of the terminal comes first and is no attribute.
        (b"\x1b[?4;22c", None),
        (b"\x1bP>|kitty(0.40.0)\x1b\\", None),
        (b"", None),
        (b"garbage\xff", None),
    ],
)
def test_what_a_reply_means(reply: bytes, protocol: str | None) -> None:
    found = understood(reply, world())
    assert (found.protocol if found else None) == protocol


def test_iterm2_is_known_by_its_variable_but_not_through_tmux() -> None:
    program = {"TERM_PROGRAM": "iTerm.app"}
    found = understood(DA1_PLAIN, world(**program))
    assert found and found.protocol == "iterm2"
    assert understood(DA1_PLAIN, world(TMUX="/tmp/x", **program)) is None


def test_cells_and_background_are_read_from_the_reply() -> None:
    sized = b"\x1b[6;34;17t\x1b]11;rgb:ffff/ffff/f0f0\x1b\\" + DA1_SIXEL
    assert understood(sized, world()) == ImageTerminal("sixel", (17, 34), dark=False)
    senseless = b"\x1b[6;99999;0t\x1b]11;rgb:1/2/3\x1b\\" + DA1_SIXEL
    assert understood(senseless, world()) == ImageTerminal("sixel", (10, 20), dark=True)


Answer = Callable[[bytes], bytes]


@contextmanager
def terminal(answer: Answer) -> Iterator[tuple[Any, list[bytes]]]:
    """The stream of a real terminal, which answers what is written to it."""
    master, slave = pty.openpty()
    read: list[bytes] = []

    def serve() -> None:
        try:
            while piece := os.read(master, 65536):
                read.append(piece)
                if reply := answer(piece):
                    os.write(master, reply)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with open(slave, "w", encoding="utf-8", closefd=False) as stream:
        yield stream, read
    os.close(slave)
    thread.join(5)
    os.close(master)


def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new terminal is not the controlling one of a test, so it has no group of processes."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())


def test_a_terminal_with_sixel_gets_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    asking(monkeypatch)
    with terminal(lambda asked: DA1_SIXEL if b"\x1b[c" in asked else b"") as (stream, read):
        place = replace(world(COLUMNS="60"), stdout=stream)
        showing.show(FIGURE, showing.wish("image", place, stream), place, stream)
    sent = b"".join(read).decode()
    # 24 lines of 20 pixels, less two for the prompt.
    image = sent[sent.index("\x1bP0;1;0q") : sent.rindex("\x1b\\") + 2]
    pixels = sixel_image(image)
    assert len(pixels) == 440 and 300 < len(pixels[0]) < 590


def test_a_terminal_without_images_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asking(monkeypatch)
    with terminal(lambda asked: DA1_PLAIN if b"\x1b[c" in asked else b"") as (stream, read):
        place = replace(world(COLUMNS="60"), stdout=stream)
        showing.show(FIGURE, showing.Wish("auto"), place, stream)
        with pytest.raises(UsageError, match="this terminal shows no images"):
            showing.wish("image", place, stream)
    assert "└" in b"".join(read).decode() and b"\x1bP0" not in b"".join(read)


def test_a_silent_terminal_gets_text_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    import termios

    asking(monkeypatch)
    monkeypatch.setattr("llmchat.output.plots.terminal_query._TIMEOUT_S", 0.05)
    with terminal(lambda asked: b"") as (stream, read):
        before = termios.tcgetattr(stream.fileno())
        place = replace(world(), stdout=stream)
        showing.show(FIGURE, showing.Wish("auto"), place, stream)
        assert termios.tcgetattr(stream.fileno()) == before
    assert "└" in b"".join(read).decode()


def test_keys_that_wait_are_not_eaten(monkeypatch: pytest.MonkeyPatch) -> None:
    asking(monkeypatch)
    from llmchat.output.plots.terminal_query import find

    master, slave = pty.openpty()
    os.write(master, b"ls\n")
    with open(slave, "r+b", buffering=0) as stream:
        place = world()
        assert find(place, stream) is None  # type: ignore[arg-type]
        assert stream.read(3) == b"ls\n"
    os.close(master)


def test_a_job_in_the_background_does_not_touch_the_terminal() -> None:
    with terminal(lambda asked: DA1_SIXEL) as (stream, read):
        # The terminal is not ours: tcgetpgrp fails or names another group.
        place = replace(world(), stdout=stream)
        showing.show(FIGURE, showing.Wish("auto"), place, stream)
    assert b"\x1b[c" not in b"".join(read)
