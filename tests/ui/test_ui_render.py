"""Streamed Markdown ends like one print of the whole text; a terminal emulator compares them."""

import io
import re

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import Stream, make_world

from llmchat.ui import markdown_renderer, tables, themes
from llmchat.ui.dimmed_section import DimmedSection
from llmchat.ui.hyperlinks import has_hyperlinks
from llmchat.ui.markdown import MarkdownOptions, paint, rows_of
from llmchat.ui.markdown_renderer import MarkdownRenderer
from llmchat.ui.renderer import PlainRenderer, choose_renderer
from llmchat.ui.stable_prefix import stable_offsets

CORPUS = {
    "paragraphs": "One line that is long enough to be folded at forty columns, surely.\n\n"
    "Two *stars* and `code`.\n\nThree.",
    "headings": "# Title\n\n## Part one\n\nText\n\nSetext\n======\n\n"
    "More\n\n### Small\n\n## Part two\nEnd",
    "lists": "Intro:\n\n- one\n- two\n  - deep\n  - deeper\n\n    a paragraph inside\n- three\n\n"
    "1. first\n2. second\n\nDone",
    "loose list": "- a\n\n- b\n\n- c\n\nafter",
    "code": "Look:\n\n```python\ndef f(x):\n    return x  # a comment\n\n\nprint(f(1))\n```\n\n"
    "and `inline`.",
    "half-open fence": "Start\n\n```\nno end\n\n# not a heading",
    "table": "| name | size |\n|---|---:|\n| a | 1 |\n| b | 22 |\n\nText after the table.",
    "quote": "> quoted\n> more\nlazy\n\n> new quote\n\nend",
    "rule": "above\n\n---\n\nbelow\n***\nend",
    "chinese and emoji": "# 你好世界\n\n"
    "这是一个很长的段落，用来测试终端中的宽字符换行是否正确，应该在四十列处折行。\n\n"
    "- 🗼 東京\n- 🇫🇷 Paris\n\n"
    "| 城市 | 人口 |\n|---|---|\n| 東京 | 14 |\n",
    "html": "<b>bold</b>\n\n<div>\nblock\n</div>\n\nafter",
    "hard breaks": "one  \ntwo\\\nthree\n\nfour",
    "longer than the screen": "\n\n".join(
        f"Paragraph number {number} of an answer that does not end soon." for number in range(30)
    ),
    "one block longer than the screen": "```\n"
    + "\n".join(f"line {number}" for number in range(60))
    + "\n```\n\nend",
    "a long list with code": "".join(
        f"{number}. Step {number} is *long* enough to be folded in a narrow window:\n"
        f"   ```sh\n   run {number}\n   ```\n"
        for number in range(1, 14)
    ),
    "a long table": "| n | square |\n|---|---:|\n"
    + "".join(f"| row {n} | {n * n} |\n" for n in range(30))
    + "\nend",
    "a wide table": "| city | what is there |\n|---|---|\n"
    + "| Springfield | "
    + "incomprehensibilities " * 3
    + "|\n| b | c |\n\nend",
    "a long paragraph": 9
    * (
        "It *says* `some code` and [a link](https://example.org/path) "
        "with snake_case_words, 2 * 3 [1]. "
    ),
    "open marks": "An **open mark " + "and words that go on for long " * 20 + "\n\nend",
    "a poem": "\n".join(f"verse {number} of the poem" for number in range(30)),
    "blank at both ends": "\n\n  \nHello\n\n\n",
    "empty": "",
}


def screen_after(pieces: list[str], width: int, height: int = 12) -> list[str]:
    """All rows, scrolled away or not, after the pieces were streamed."""
    screen = pyte.HistoryScreen(width, height, history=2000)
    terminal = pyte.Stream(screen)
    stream = Stream(tty=True)
    renderer = MarkdownRenderer(stream, lambda: (width, height))
    shown = 0
    for piece in [*pieces, None]:
        renderer.finish() if piece is None else renderer.feed(piece)
        text = stream.getvalue()
        # A terminal's line discipline adds the carriage return.
        terminal.feed(text[shown:].replace("\n", "\r\n"))
        shown = len(text)
    return rows_on(screen)


def rows_on(screen: pyte.HistoryScreen) -> list[str]:
    above = [
        "".join(line[column].data for column in range(screen.columns))
        for line in screen.history.top
    ]
    rows = [row.rstrip() for row in (*above, *screen.display)]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def printed_once(text: str, width: int) -> list[str]:
    screen = pyte.HistoryScreen(width, 12, history=2000)
    pyte.Stream(screen).feed("\r\n".join(paint(rows_of(text, width))) + "\r\n")
    return rows_on(screen)


@pytest.fixture(autouse=True)
def redraw_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown_renderer, "_REDRAW_SECONDS", 0.0)


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize(("width", "size"), [(40, 1), (80, 7)])
def test_streamed_equals_printed(name: str, width: int, size: int) -> None:
    text = CORPUS[name]
    if size == 1 and len(text) > 500:
        size = 3
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert screen_after(pieces, width) == printed_once(text, width)


blocks = st.lists(
    st.sampled_from(
        [
            "# head\n",
            "para one\nline two\n",
            "- a\n- b\n",
            "- a\n\n  b\n",
            "1. x\n2. y\n",
            "```\ncode\n\n```\n",
            "> q\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n",
            "---\n",
            "## two\n",
        ]
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(blocks, st.data())
def test_any_blocks_in_any_pieces(parts: list[str], data: st.DataObject) -> None:
    text = "\n".join(parts)
    pieces = []
    while text:
        cut = data.draw(st.integers(1, min(9, len(text))))
        pieces.append(text[:cut])
        text = text[cut:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown_renderer, "_REDRAW_SECONDS", 0.0)
        assert screen_after(pieces, 40) == printed_once("\n".join(parts), 40)


words = st.lists(
    st.sampled_from(
        [
            "**bold** ",
            "*em* ",
            "`code` ",
            "word ",
            "snake_case ",
            "2 * 3 ",
            "[link](http:a.b) ",
            "[1] ",
            "[open ",
            "~~no~~ ",
            "**",
            "*",
            "_",
            "`",
            "``",
            "<div> ",
            "a<b ",
            "\n",
            "\n\n",
            "- ",
            "1. ",
            "```\n",
            "> ",
            "你好世界，",
            "🗼 ",
            "&lt; ",
            "a_very_long_word ",
        ]
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(words, st.integers(1, 9))
def test_words_in_any_pieces(parts: list[str], size: int) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown_renderer, "_REDRAW_SECONDS", 0.0)
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert screen_after(pieces, 24) == printed_once(text, 24)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("use `<div>` and <div>", "use <div> and <div>"),
        ("List<int> and a<b and c>d", "List<int> and a<b and c>d"),
        ("<p>all of it</p>", "<p>all of it</p>"),
        ("<!-- a note -->", "<!-- a note -->"),
        ("[text]: http://a.b", "[text]: http://a.b"),
        ("[label](http://a.b/c)", "label (http://a.b/c)"),
        ("<http://a.b/c>", "http://a.b/c"),
        ("![a cat](cat.png)", "image: a cat (cat.png)"),
        ("3. three", "3. three"),
    ],
)
def test_no_text_is_lost(text: str, row: str) -> None:
    assert [shown.plain for shown in rows_of(text, 60)] == [row]


def test_line_ends_are_kept() -> None:
    assert [row.plain for row in rows_of("Roses are red\nviolets are blue", 60)] == [
        "Roses are red",
        "violets are blue",
    ]


def test_a_link_is_a_hyperlink_where_the_terminal_knows_them() -> None:
    (row,) = paint(rows_of("[label](http://a.b/c)", 60, MarkdownOptions(links=True)))
    assert row.startswith("\x1b]8;;http://a.b/c\x1b\\") and "(http" not in row


@pytest.mark.parametrize(
    ("env", "known"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM_PROGRAM": "WezTerm"}, True),
        ({"VTE_VERSION": "7000"}, True),
        ({"VTE_VERSION": "4800"}, False),
        ({"TERM_PROGRAM": "WezTerm", "TMUX": "/tmp/tmux-0/default,1,0"}, False),
        ({"TMUX": "/tmp/tmux-0/default,1,0", "FORCE_HYPERLINK": "1"}, True),
        ({"TERM_PROGRAM": "WezTerm", "FORCE_HYPERLINK": "0"}, False),
    ],
)
def test_which_terminals_know_hyperlinks(env: dict[str, str], known: bool) -> None:
    assert has_hyperlinks(env) is known


def test_a_table_too_wide_becomes_records() -> None:
    table = (
        "| name | incomprehensibility |\n|---|---|\n"
        "| Wolfeschlegelsteinhausenbergerdorff | counterrevolutionaries |\n| b | c |\n"
    )
    assert [row.plain for row in rows_of(table, 40)] == [
        "name:",
        "Wolfeschlegelsteinhausenbergerdorff",
        "incomprehensibility:",
        "counterrevolutionaries",
        "",
        "name: b",
        "incomprehensibility: c",
    ]


def test_cells_are_folded_at_words_and_none_is_cut() -> None:
    table = (
        "| key | meaning |\n|---|---|\n"
        "| one | a text that is longer than the window is wide |\n| `a | b` | code |\n"
    )
    assert [row.plain for row in rows_of(table, 30)] == [
        "key    meaning",
        "─────  ───────────────────────",
        "one    a text that is longer",
        "       than the window is wide",
        "a | b  code",
    ]


def test_no_colour_leaves_the_other_styles() -> None:
    text = "# Title\n\n**bold** `code`\n\n```python\ndef f(): return 1  # note\n```"
    options = MarkdownOptions(themes.at_depth(themes.find_theme("dracula"), 0))
    plain = "".join(paint(rows_of(text, 60, options)))
    assert "\x1b[1m" in plain and "\x1b[3m" in plain
    assert not re.search(r"\x1b\[([0-9;]*;)?(3|4|9)[0-7]m", plain)
    assert re.search(r"\x1b\[([0-9;]*;)?3[0-7]m", "".join(paint(rows_of(text, 60))))


def test_code_blocks_are_numbered() -> None:
    text = "```python\na\n```\n\n- x\n  ```\n  b\n  ```\n\n```sh\nc\n```\n"
    for look, numbers in (
        (MarkdownOptions(first=3), [" [3]", " [4]", " [5]"]),
        (MarkdownOptions(), ["", "", ""]),
    ):
        rows = [row.plain for row in rows_of(text, 40, look)]
        assert [row for row in rows if "──" in row] == [
            f"── python{numbers[0]}", f"  ── code{numbers[1]}", f"── sh{numbers[2]}"
        ]  # fmt: skip


def test_numbers_go_on_when_blocks_have_scrolled_away() -> None:
    stream = Stream(tty=True)
    renderer = MarkdownRenderer(stream, lambda: (40, 10), MarkdownOptions(first=1))
    for number in range(30):
        renderer.feed(f"text\n\n```\nblock {number}\n```\n\n")
    renderer.finish()
    assert "── code [30]" in stream.getvalue() and "[31]" not in stream.getvalue()


def test_nothing_clears_the_screen() -> None:
    stream = Stream(tty=True)
    renderer = MarkdownRenderer(stream, lambda: (40, 10))
    for char in CORPUS["one block longer than the screen"] + "\n\n" + CORPUS["table"]:
        renderer.feed(char)
    renderer.finish()
    assert not re.search(r"\x1b\[[0-9]?J", stream.getvalue())


def test_all_but_the_last_block_are_settled() -> None:
    text = "one\n\n- a\n- b\n\ntwo\nmore"
    assert stable_offsets(text) == (text.index("- a"), text.index("two"), text.index("two"))
    assert stable_offsets("no line end") == (0, 0, 0)


def test_a_window_that_becomes_narrower_keeps_what_is_finished() -> None:
    stream, width = Stream(tty=True), 80
    renderer = MarkdownRenderer(stream, lambda: (width, 20))
    renderer.feed("first block\n\nsecond " + "word " * 12)
    width = 40
    renderer.feed("third\n\nend")
    renderer.finish()
    screen = pyte.HistoryScreen(40, 20, history=100)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    rows = rows_on(screen)
    assert (
        rows[0] == "first block" and rows[-1] == "end" and sum("second" in row for row in rows) == 1
    )


def test_bytes_are_bounded() -> None:
    """The bytes written grow linearly with an answer of small blocks.

    Redraws are at most 20 a second, and each writes only the tail again.
    """
    text = CORPUS["longer than the screen"]
    stream = Stream(tty=True)
    renderer = MarkdownRenderer(stream, lambda: (80, 24))
    for start in range(0, len(text), 4):
        renderer.feed(text[start : start + 4])
    renderer.finish()
    assert len(stream.getvalue()) < 60 * len(text)


def test_plain_is_the_text_and_nothing_else(tmp_path: object) -> None:
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    for piece in ("# Ti", "tle\n\n**bo", "ld**"):
        renderer.feed(piece)
    renderer.finish()
    assert stream.getvalue() == "# Title\n\n**bold**\n"


def test_a_model_cannot_drive_the_terminal() -> None:
    evil = "a\x1b]52;c;aGk=\x07b\x1b[2J\x9b2Jc\rd\te\u202ef\u2066g\n"
    for renderer in (PlainRenderer, MarkdownRenderer):
        stream = Stream(tty=True)
        shown = renderer(stream)
        shown.feed(evil)
        shown.finish()
        assert (
            "\x1b]" not in stream.getvalue()
            and "\x1b[2J" not in stream.getvalue()
            and "\x9b" not in stream.getvalue()
        )
        assert "\u202e" not in stream.getvalue() and "\u2066" not in stream.getvalue()
    pipe = Stream()
    PlainRenderer(pipe).feed(evil)
    assert pipe.getvalue() == evil, "what goes into a pipe is not changed"


@pytest.mark.parametrize(
    ("tty", "env", "plain", "kind"),
    [
        (True, {}, False, MarkdownRenderer),
        (True, {}, True, PlainRenderer),
        (False, {}, False, PlainRenderer),
        (True, {"TERM": "dumb"}, False, PlainRenderer),
        (True, {"NO_COLOR": "1"}, False, MarkdownRenderer),
    ],
)
def test_which_renderer(tty: bool, env: dict[str, str], plain: bool, kind: type, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert isinstance(choose_renderer(make_world(tmp_path, tty=tty, **env), plain=plain), kind)


def test_a_table_shows_words_as_they_are(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = make_world(tmp_path, tty=True)
    tables.rows(world, [{"title": "the [capital] of [bold]x[/] :smile:"}], ("title",))
    assert "the [capital] of [bold]x[/] :smile:" in world.stdout.getvalue()  # type: ignore[attr-defined]


def test_thoughts_are_dimmed_and_end_before_the_answer(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = make_world(tmp_path, tty=True)
    aside = DimmedSection(world)
    for piece in ("so ", "it is"):
        aside.feed("thinking", piece)
    aside.finish()
    aside.finish()
    screen = pyte.Screen(40, 5)
    pyte.Stream(screen).feed(world.stdout.getvalue().replace("\n", "\r\n"))  # type: ignore[attr-defined]
    assert [row.rstrip() for row in screen.display] == ["[thinking]", "so it is", "", "", ""]
    assert "\x1b[2mso \x1b[0m" in world.stdout.getvalue()  # type: ignore[attr-defined]
