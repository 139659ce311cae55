"""Ctrl-P: fuzzy search, the rows of the list, and the list on an emulated and a real terminal."""

import io
import os
import sys
from pathlib import Path

import pexpect
import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth
from support.repl_terminal import DRIVER, ready, start
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.history import History, Overview
from llmchat.ui import fuzzy
from llmchat.ui.session_list import SessionList, clean, cut, row
from llmchat.ui.switcher import _Switcher

NOW = 1_800_000_000.0
CTRL_P, ESCAPE, UP, DOWN, PAGE_DOWN = "\x10", "\x1b", "\x1b[A", "\x1b[B", "\x1b[6~"
TITLES = [
    "Fix the parser of dates",
    "東京の天気について教えてください",
    "👩\u200d👩\u200d👧 Trip ✈\ufe0f plan",
    "evil \x1b[31mred\x1b]0;owned\x07 \u202etitle",
    "Rename *.jpeg to *.jpg",
]


def overview(title: str, question: str = "", model: str = "smollm2", number: int = 0) -> Overview:
    return Overview(f"s{number:07d}", title, model, 2, NOW - 3600 * (number + 1), question or title)


def listed(*sessions: Overview, current: str | None = None) -> SessionList:
    def read(limit: int | None) -> list[Overview]:
        return list(sessions[:limit])

    return SessionList(read, current)


def titles_for(query: str, *sessions: Overview) -> list[str]:
    found = listed(*sessions)
    found.search(query)
    return [session.title for _, session, _ in found.window(100)]


# Search


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("date", ["Dates of trains", "Update the index"]),
        ("DATES", ["Dates of trains"]),
        ("dot", ["Dates of trains"]),
        ("prsr", ["A parser for CSV"]),
        ("csv parse", ["A parser for CSV"]),
        ("resume", ["Résumé of Zoë"]),
        ("zoë", ["Résumé of Zoë"]),
        ("qwen", ["Update the index"]),
        ("pelican", ["A parser for CSV"]),
        ("plcn", []),
        ("xyz", []),
        ("parser xyz", []),
    ],
)
def test_words_are_found_in_titles_models_and_first_questions(
    query: str, titles: list[str]
) -> None:
    assert titles == titles_for(
        query,
        overview("Update the index", model="qwen2.5"),
        overview("Dates of trains"),
        overview("A parser for CSV", "A parser for CSV, please, and a poem about a pelican"),
        overview("Résumé of Zoë"),
    )


def test_a_title_goes_before_a_question_and_a_recent_chat_before_an_older_one() -> None:
    in_question = overview("Something else", "Something else about a tree")
    older, newest = overview("A tree", number=2), overview("The tree", number=1)
    assert titles_for("tree", newest, in_question, older) == [
        "The tree", "A tree", "Something else",
    ]  # fmt: skip
    assert titles_for("  ", newest, in_question, older)[0] == "The tree"


@settings(deadline=None)
@given(st.text(), st.text(max_size=6))
def test_what_was_found_is_in_the_text(text: str, word: str) -> None:
    found, word = fuzzy.folded(text), fuzzy.folded(word)
    assert len(found) == len(text)
    if word and (match := fuzzy.fit(word, found)):
        assert "".join(found[place] for place in match.letters) == word
    assert bool(word in found) <= (word == "" or fuzzy.fit(word, found) is not None)


def test_five_thousand_sessions_are_read_only_when_they_are_needed() -> None:
    asked: list[int | None] = []
    sessions = [overview(f"Chat {number}", number=number) for number in range(5000)]

    def read(limit: int | None) -> list[Overview]:
        asked.append(limit)
        return sessions[:limit]

    found = SessionList(read)
    found.move(20)
    assert asked == [200] and found.count == "200 latest"
    found.move(1000)
    assert asked == [200, None] and found.count == "5,000 chats"
    found.search("4321")
    assert found.count == "1 of 5,000" and found.chosen and found.chosen.title == "Chat 4321"
    assert asked == [200, None]


def test_the_chosen_row_is_always_in_sight() -> None:
    found = listed(*(overview(f"Chat {number}", number=number) for number in range(30)))
    for rows, step in ((5, 1), (5, 7), (3, -2), (8, -100), (4, 100)):
        found.move(step)
        window = found.window(rows)
        assert len(window) == rows and found.at in [place for place, _, _ in window]


def test_the_chat_before_the_open_one_is_chosen_first() -> None:
    one, two = overview("one", number=0), overview("two", number=1)
    assert listed(one, two, current=one.id).chosen == two
    assert listed(one, two, current=two.id).chosen == one
    assert listed(one, current=one.id).chosen == one
    assert listed().chosen is None


# Rows


@pytest.mark.parametrize("width", [20, 40, 56, 76, 80, 120, 200])
@pytest.mark.parametrize("chosen", [False, True])
def test_every_row_is_as_wide_as_the_window(width: int, chosen: bool) -> None:
    for number, title in enumerate([*TITLES, "", "x" * 300]):
        session = overview(
            title, model="an-organisation/a-long-name-of-a-model", number=number * 99
        )
        for query in ("", "title", "天気"):
            found = listed(session)
            found.search(query)
            for _, one, match in found.window(1):
                pieces = row(one, match, width, NOW, chosen=chosen, current=False)
                text = "".join(piece[1] for piece in pieces)
                assert get_cwidth(text) == width and text.isprintable()


def test_a_row_marks_the_letters_that_were_found() -> None:
    def marked(title: str, query: str) -> str:
        found = listed(overview(title, "Hello there, a long question about pelicans in Peru"))
        found.search(query)
        ((_, one, match),) = found.window(1)
        pieces = row(one, match, 80, NOW, chosen=False, current=True)
        assert pieces[0][1] == "* "
        return "".join(piece[1] for piece in pieces if piece[0] == "class:match")

    assert marked("Fix the parser of dates", "dates fix") == "Fixdates"
    assert marked("Fix the parser of dates", "pod") == "pod"
    assert marked("Hello", "pelicans") == "pelicans"


def test_a_hostile_title_is_harmless() -> None:
    assert clean("evil \x1b[31mred\x1b]0;owned\x07 \u202etitle\n\tend") == (
        "evil [31mred]0;owned title end"
    )
    assert clean("👩\u200d👩\u200d👧 ✈\ufe0f") == "👩👩👧 ✈"


@settings(deadline=None)
@given(st.text(), st.integers(1, 30))
def test_a_text_is_cut_at_a_number_of_cells(text: str, cells: int) -> None:
    shown = cut(clean(text), cells)
    assert get_cwidth(shown) <= cells


# On a terminal


def history_of(folder: Path, *titles: str) -> History:
    """A history with a chat of each title, the first one the latest."""
    history = History(folder / "history.db", now=lambda: NOW)
    for number, title in reversed(list(enumerate(titles))):
        session = history.begin("smollm2")
        moment = NOW - 60 * (number + 1)
        with history.transaction():
            tip = history.insert(session, None, Message("user", title), created=moment)
            history.insert(session, tip, Message("assistant", f"Answer to {title}"), created=moment)
    return history


def shown(
    history: History, keys: str, columns: int = 80, rows: int = 24, current: str | None = None
) -> tuple[list[str], str | None]:
    """The screen before the last key, and what was chosen."""
    screens: list[list[str]] = []
    stream = io.StringIO()
    size = Size(rows=rows, columns=columns)
    output = Vt100_Output(stream, lambda: size, term="xterm-256color", enable_cpr=False)
    world = make_world(history.path.parent if history.path else Path(), tty=True)
    with create_pipe_input() as typed:
        switcher = _Switcher(history, world, current, typed, output)

        def keep(_: object) -> None:
            screen = pyte.Screen(columns, rows)
            pyte.Stream(screen).feed(stream.getvalue().replace("\x1b[?7l", ""))
            screens.append([line.rstrip() for line in screen.display])

        switcher.app.after_render += keep
        # The rest is typed once the first screen is drawn.
        pieces = iter([keys[:-1], keys[-1]])
        switcher.app.after_render += lambda _: typed.send_text(next(pieces, ""))
        chosen = switcher.app.run()
    return screens[-2], chosen


@pytest.mark.parametrize(
    ("columns", "rows"), [(40, 10), (40, 6), (80, 24), (120, 30), (200, 50), (24, 4)]
)
def test_the_list_fits_every_window(columns: int, rows: int, tmp_path: Path) -> None:
    with history_of(tmp_path, *TITLES, *(f"Chat {number}" for number in range(40))) as history:
        screen, chosen = shown(history, f"{DOWN}{DOWN}\r", columns, rows)
        assert chosen == history.overviews()[2].id
    assert screen[0].startswith("switch to:") and "· Esc" in "".join(screen)
    assert any(line.startswith("❯ 👩") for line in screen)
    assert ("│ Answer to" in "\n".join(screen)) == (rows >= 12)


def test_typing_filters_and_enter_takes_the_best(tmp_path: Path) -> None:
    with history_of(tmp_path, *TITLES) as history:
        screen, chosen = shown(history, "jpg\r")
        assert chosen and history.find(chosen).title == "Rename *.jpeg to *.jpg"
    assert "1 of 5" in screen[0] and not any("parser" in line for line in screen)
    with history_of(tmp_path / "none", "one") as history:
        screen, chosen = shown(history, "zzz\r\x03")
        assert chosen is None and "no saved chat fits `zzz`" in "\n".join(screen)


@pytest.mark.parametrize("key", ["\x03", "\x07", "\x04"], ids=["Ctrl-C", "Ctrl-G", "Ctrl-D"])
def test_keys_that_return(key: str, tmp_path: Path) -> None:
    with history_of(tmp_path, *TITLES) as history:
        assert shown(history, f"abc{key}")[1] is None


def test_the_overview_has_the_first_question_and_the_last_answer(tmp_path: Path) -> None:
    with history_of(tmp_path, "Hello") as history:
        (one,) = history.overviews()
        assert (one.title, one.question, one.turns, one.model) == ("Hello", "Hello", 1, "smollm2")
        assert history.last_answer(one.id) == "Answer to Hello"
        empty = history.begin("smollm2")
        assert history.last_answer(empty) == "" and len(history.overviews()) == 1
        with history.transaction():
            fork = history.fork(one.id, [row["id"] for row in history.path_of(one.id)])
        assert history.last_answer(fork) == "Answer to Hello"
        assert {each.title for each in history.overviews()} == {"Hello"}


@pytest.fixture
def child(tmp_path: Path) -> "pexpect.spawn[str]":
    history_of(tmp_path / "data", "Alpha question", "Beta question", "Gamma").close()
    return start(tmp_path)


def test_ctrl_p_opens_filters_and_switches(child: "pexpect.spawn[str]") -> None:
    child.send(CTRL_P)
    child.expect_exact("switch to: ")
    child.expect_exact("Gamma")
    child.send("beta")
    child.expect_exact("1 of 3")
    child.send("\r")
    child.expect("continuing .*: Beta question")
    child.expect_exact("Answer to Beta question")
    ready(child)
    child.send("\x04")
    child.expect_exact("LEFT WITH 0 [('user', 13), ('assistant', 23)]")
    child.close()


def test_escape_and_a_switch_keep_what_was_typed(child: "pexpect.spawn[str]") -> None:
    child.send(f"half a df\x1b[D{CTRL_P}")
    child.expect_exact("switch to: ")
    child.expect_exact("Gamma")
    child.send(ESCAPE)
    ready(child)
    child.send(f"ra{CTRL_P}")
    child.expect_exact("Gamma")
    child.send("gamma\r")
    child.expect("continuing .*: Gamma")
    ready(child)
    child.send("\x1b[Ft\r")
    child.expect("first answer")
    ready(child)
    child.send("\x04")
    child.expect_exact(f"('user', {len('half a draft')}), ('assistant', 12)]")
    child.close()


def test_without_saved_chats_there_is_no_list(tmp_path: Path) -> None:
    child = start(tmp_path)
    child.send(f"draft{CTRL_P}")
    child.expect_exact("there are no saved chats")
    child.expect_exact("draft")
    child.send("\x03\x04")
    child.expect_exact("LEFT WITH 0 []")


def test_a_dumb_terminal_gets_the_list_of_sessions(tmp_path: Path) -> None:
    history_of(tmp_path / "data", "Alpha question").close()
    env = {**os.environ, "TERM": "dumb"}
    child = pexpect.spawn(sys.executable, [str(DRIVER), str(tmp_path)], env=env, encoding="utf-8")
    child.expect("/help for commands")
    child.expect_exact("> ")
    child.send(CTRL_P)
    child.expect("Alpha question · ")
    assert "\x1b" not in child.before
    child.expect_exact("> ")
    child.send("\x04")
    child.expect_exact("LEFT WITH 0 []")
