"""Where a plot goes: a terminal, a pipe only when asked, or a file; as SVG with its numbers."""

import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.output.plots import showing
from llmchat.output.plots.figures import Bar, BarChart, Figure, LineChart, curve, tidy
from llmchat.output.plots.shapes import SERIES
from llmchat.output.plots.svg import figure_html, svg_file

FIGURE = Figure(
    "pupil",
    (
        LineChart("", "step", "loss", (curve("training", [(1, 2.0), (2, 1.0), (3, None)]),)),
        BarChart("quiz", "%", (Bar("a & <b>", 12.5, 7.0, 21.0), Bar("c", None)), end=100),
    ),
)
ONE = Figure("", (BarChart("quiz", "%", (Bar("a", 1.0),)),))


def shown(tmp_path: Path, word: str | None, tty: bool, figure: Figure = FIGURE, **env: str) -> str:
    world = make_world(tmp_path, tty=tty, **env)
    showing.show(figure, showing.wish(word, world, world.stdout), world, world.stdout)
    return world.stdout.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_a_plot_and_a_pipe_none(tmp_path: Path) -> None:
    assert "└" in shown(tmp_path, None, tty=True, TERM="xterm")
    assert shown(tmp_path, None, tty=False) == shown(tmp_path, "auto", tty=False) == ""


def test_a_pipe_gets_text_without_codes_when_asked(tmp_path: Path) -> None:
    text = shown(tmp_path, "text", tty=False)
    assert "└" in text and "\x1b" not in text


@pytest.mark.parametrize(
    ("env", "coloured", "styled"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
    ids=str,
)
def test_codes_on_a_terminal(
    tmp_path: Path, env: dict[str, str], coloured: bool, styled: bool
) -> None:
    text = shown(tmp_path, "text", tty=True, **env)
    assert ("\x1b[36m" in text, "\x1b[2m" in text) == (coloured, styled)
    assert text.isascii() == (env["TERM"] == "dumb")


def test_a_single_value_is_plotted_only_when_asked(tmp_path: Path) -> None:
    assert shown(tmp_path, None, True, ONE, TERM="xterm") == ""
    assert "quiz" in shown(tmp_path, "text", True, ONE, TERM="xterm")


def test_many_charts_are_plotted_only_when_asked(tmp_path: Path) -> None:
    many = Figure("", FIGURE.charts * 4)
    assert shown(tmp_path, None, True, many, TERM="xterm") == ""
    assert shown(tmp_path, "text", True, many, TERM="xterm").count("quiz") == 4


def test_the_variable_and_the_config_file_decide_without_a_flag(tmp_path: Path) -> None:
    assert shown(tmp_path, None, True, TERM="xterm", LLMCHAT_PLOT="none") == ""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text('plot = "text"\n')
    assert "└" in shown(tmp_path, None, tty=False)
    assert shown(tmp_path, "none", tty=False) == ""


def test_a_file_is_written_and_named(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, TERM="xterm")
    path = tmp_path / "plot.svg"
    showing.show(FIGURE, showing.wish(str(path), world, world.stdout), world, world.stdout)
    assert ElementTree.fromstring(path.read_text("utf-8")).tag.endswith("svg")
    assert world.stdout.getvalue() == ""  # type: ignore[attr-defined]
    assert world.stderr.getvalue() == f"plot:    {path}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("txt", "--plot must be auto, text, image, none, or a .png or .svg file, not `txt`"),
        ("plot.pdf", "not `plot.pdf`"),
        ("/nowhere/at/all.svg", "cannot be written: No such file or directory"),
        ("image", "the output is not a terminal, so it shows no images"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_one_line(tmp_path: Path, word: str, line: str) -> None:
    world = make_world(tmp_path)
    with pytest.raises(UsageError) as caught:
        showing.wish(word, world, world.stdout)
    assert line in caught.value.message


@pytest.mark.parametrize("word", ["image", "plot.png"])
def test_without_pillow_png_and_images_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(showing, "has_pillow", lambda: False)
    world = make_world(tmp_path, tty=True, TERM="xterm")
    with pytest.raises(UsageError) as caught:
        showing.wish(word, world, world.stdout)
    assert "require Pillow" in caught.value.message
    assert caught.value.hint == "pip install 'llmchat[plots]'"
    assert not (tmp_path / "plot.png").exists()


def test_text_and_svg_load_no_library_of_images(tmp_path: Path) -> None:
    before = set(sys.modules)
    shown(tmp_path, "text", tty=False)
    svg_file(FIGURE)
    assert not {
        name for name in set(sys.modules) - before if name.startswith(("PIL", "matplotlib"))
    }


def test_svg_is_xml_with_a_title_a_description_and_every_label() -> None:
    root = ElementTree.fromstring(svg_file(FIGURE))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "pupil"
    description = root.findtext(f"{space}desc") or ""
    assert "training from 2 at step 1 to 1 at 2, lowest 1" in description
    assert "a & <b> 12.5 %" in description and "not finite: 1 of training" in description
    texts = [one.text for one in root.iter(f"{space}text")]
    assert {"a & <b>", "12.5 %", "not measured", "training", "step"} <= set(texts)


def test_a_page_has_the_numbers_as_a_table_and_escapes_them() -> None:
    html = figure_html(FIGURE)
    assert "<td>a &amp; &lt;b&gt;</td><td>12.5 %</td><td>7.0</td><td>21.0</td>" in html
    assert "<td>3</td><td>not finite</td>" in html and "<b>" not in html


def test_labels_from_outside_lose_what_a_terminal_or_xml_would_obey() -> None:
    assert tidy("a\x1b[31mb\x00c\n d\u202e") == "a [31mb c d"
    figure = Figure(tidy("\x1b\x00"), (BarChart(tidy("x\x07"), "", (Bar(tidy("\x1b]0;"), 1.0),)),))
    ElementTree.fromstring(svg_file(figure))


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", SERIES)
@pytest.mark.parametrize("background", ["#ffffff", "#16181c"])
def test_curves_are_visible_on_light_and_dark(colour: str, background: str) -> None:
    one, other = sorted((luminance(colour), luminance(background)))
    assert (other + 0.05) / (one + 0.05) >= 3


def test_checking_a_file_changes_nothing_on_the_disk(tmp_path: Path) -> None:
    new, old, pipe = (tmp_path / name for name in ("new.svg", "old.svg", "pipe.svg"))
    old.write_text("a plot")
    os.mkfifo(pipe)
    (tmp_path / "folder.svg").mkdir()
    assert showing.writable(str(new)) == new and not new.exists()
    assert showing.writable(str(old)) == old and old.read_text() == "a plot"
    for name in (pipe, tmp_path / "folder.svg"):
        with pytest.raises(UsageError, match="is not a regular file"):
            showing.writable(str(name))
