"""The history on real files: a tree that loses nothing, whatever happens to the process."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat.conversation import Conversation, Message
from llmchat.engines import Finish
from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError
from llmchat.history import BranchWriter, History, migrations

WRITER = Path(__file__).parents[1] / "support" / "write_messages.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def test_what_was_written_is_there_for_the_next_process(path: Path) -> None:
    talk = Conversation().instruct("be kind").say("hello", "a file").answer("hi 🗼")
    with History(path) as history:
        session = history.begin("smollm2")
        for message in talk.messages:
            BranchWriter(history, session).append(message)
    with History(path) as history:
        assert history.conversation(session) == talk
        found = history.latest()
        assert found and (found.id, found.title, found.model, found.turns) == (
            session,
            "hello",
            "smollm2",
            1,
        )


def test_an_answer_keeps_how_it_came_about(path: Path) -> None:
    with History(path) as history:
        session = history.begin("m")
        BranchWriter(history, session).append(user("q"))
        BranchWriter(history, session).append(
            assistant("half an"), Finish("cancelled", 10, 5, 3, 0.5, 0.25, 7)
        )
        record = history.messages(session)[-1]
    assert (
        record.state == "cancelled"
        and record.details["seed"] == 7
        and record.details["cached_tokens"] == 5
    )


def test_a_new_answer_is_a_sibling_of_the_old_one(path: Path) -> None:
    with History(path) as history:
        session = history.begin("m")
        BranchWriter(history, session).append(user("q"))
        old = BranchWriter(history, session).append(assistant("old"))
        BranchWriter(history, session).rewind(1)
        new = BranchWriter(history, session).append(assistant("new"))
        assert history.conversation(session) == Conversation().say("q").answer("new")
    rows = dict(sqlite3.connect(path).execute("SELECT id, parent FROM messages").fetchall())
    assert rows[old] == rows[new] and len(rows) == 3


def test_undo_to_the_beginning_and_a_new_branch(path: Path) -> None:
    with History(path) as history:
        session = history.begin("m")
        for message in (user("a"), assistant("b"), user("c")):
            BranchWriter(history, session).append(message)
        BranchWriter(history, session).rewind(0)
        assert history.conversation(session) == Conversation()
        BranchWriter(history, session).append(user("another start"))
        assert history.conversation(session) == Conversation().say("another start")
    assert sqlite3.connect(path).execute("SELECT count(*) FROM messages").fetchone() == (4,)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=5)),
        st.tuples(st.just("back"), st.integers(0, 6)),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_any_steps_give_what_a_list_would(actions: list[tuple[str, object]]) -> None:
    model: list[Message] = []
    with History(None) as history:
        session = history.begin("m")
        for kind, value in actions:
            if kind == "say":
                model.append(user(str(value)))
                BranchWriter(history, session).append(model[-1])
            else:
                depth = min(int(value), len(model))  # type: ignore[call-overload]
                model = model[:depth]
                BranchWriter(history, session).rewind(depth)
        assert history.conversation(session).messages == tuple(model)


def test_sessions_are_listed_by_last_use_and_only_when_they_hold_something(path: Path) -> None:
    with History(path) as history:
        first, second = history.begin("m"), history.begin("m")
        history.begin("never used")
        for session in (first, second, first):
            BranchWriter(history, session).append(user(f"in {session}"))
        assert [session.id for session in history.sessions()] == [first, second]
        assert [session.id for session in history.sessions(1)] == [first]


def test_find_takes_a_unique_beginning_or_the_title(path: Path) -> None:
    with History(path) as history:
        sessions = [history.begin("m") for _ in range(40)]
        for number, session in enumerate(sessions):
            BranchWriter(history, session).append(user(f"question {number}"))
        assert history.find(sessions[0]).id == history.find(sessions[0].upper()).id == sessions[0]
        assert history.find("question 7").id == sessions[7]
        shared = next(
            letter
            for letter in "0123456789abcdefghjkmnpqrstvwxyz"
            if sum(session.startswith(letter) for session in sessions) > 1
        )
        with pytest.raises(UsageError, match=f"sessions begin with `{shared}`") as refused:
            history.find(shared)
        assert "one of" in refused.value.hint
        for wrong in ("zzzzzzzzz", ""):
            with pytest.raises(UsageError, match="no session begins with"):
                history.find(wrong)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("a\nb  c", "a b c"),
        ("word " * 30, "word " * 11 + "word…"),
        ("日" * 80, "日" * 60 + "…"),
    ],
)
def test_titles_are_the_first_words(text: str, title: str) -> None:
    with History(None) as history:
        session = history.begin("m")
        BranchWriter(history, session).append(Message("system", "not this"))
        BranchWriter(history, session).append(user(text))
        BranchWriter(history, session).append(user("nor this"))
        assert history.find(session).title == title


@pytest.mark.parametrize(
    ("text", "snippet"),
    [
        ("CAPITAL", "the [capital] of France"),
        ("の首都", "日本[の首都]は"),
        ("pit", "the ca[pit]al of France"),
        ('"quoted"', 'say ["quoted"] text'),
    ],
)
def test_search(text: str, snippet: str) -> None:
    with History(None) as history:
        session = history.begin("m")
        for said in ("the capital of France", "日本の首都は", 'say "quoted" text'):
            BranchWriter(history, session).append(user(said))
        hits = history.search(text)
        assert [(hit.session, hit.snippet) for hit in hits] == [(session, snippet)]
        assert history.search("nothing like it") == []


def test_search_finds_what_was_undone(path: Path) -> None:
    with History(path) as history:
        session = history.begin("m")
        BranchWriter(history, session).append(user("question"))
        BranchWriter(history, session).append(assistant("the forgotten answer"))
        BranchWriter(history, session).rewind(1)
        BranchWriter(history, session).append(assistant("another"))
        assert [hit.session for hit in history.search("forgotten")] == [session]


def test_without_a_path_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with History(None) as history:
        BranchWriter(history, history.begin("m")).append(user("secret"))
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_read_it(path: Path) -> None:
    History(path).close()
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def test_a_newer_history_is_refused_and_not_touched(path: Path) -> None:
    History(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(migrations.STEPS) + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(LlmchatError, match="written by a newer llmchat"):
        History(path)
    assert path.read_bytes() == before


def test_a_step_that_fails_leaves_the_old_shape(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(path) as history:
        BranchWriter(history, history.begin("m")).append(user("kept"))
    good = migrations.STEPS
    monkeypatch.setattr(
        migrations, "STEPS", (*good, "CREATE TABLE extra(a);\nINSERT INTO nowhere VALUES (1);\n")
    )
    with pytest.raises(LlmchatError, match="nowhere"):
        History(path)
    monkeypatch.setattr(
        migrations, "STEPS", (*good, "ALTER TABLE sessions ADD COLUMN note TEXT;\n")
    )
    with History(path) as history:
        assert history.sessions()[0].title == "kept"
    assert sqlite3.connect(path).execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'extra'"
    ).fetchone() == (0,)


def test_a_file_that_is_no_history_is_one_clear_line(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, " * 100)
    with pytest.raises(IntegrityError, match="is not a readable history"):
        History(path)
    assert path.read_bytes().startswith(b"this is not")


def test_a_full_disk_keeps_what_was_saved(path: Path) -> None:
    with History(path) as history:
        session = history.begin("m")
        BranchWriter(history, session).append(user("saved"))
        pages = history._database.execute("PRAGMA page_count").fetchone()[0]
        history._database.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(OutOfResources, match="the disk is full"):
            for _ in range(100):
                BranchWriter(history, session).append(assistant("long " * 2000))
        history._database.execute("PRAGMA max_page_count = 1000000")
        assert history.conversation(session).messages[0] == user("saved")
        BranchWriter(history, session).append(assistant("after"))
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def write_in_background(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_programs_at_once_lose_nothing(path: Path) -> None:
    writers = [write_in_background(path, name, 60) for name in ("one", "two")]
    printed = [line.split() for writer in writers for line in writer.communicate()[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0, 0] and len(printed) == 120
    rows = dict(sqlite3.connect(path).execute("SELECT id, text FROM messages").fetchall())
    assert rows == {int(number): text for number, text in printed}


@pytest.mark.slow
def test_killed_at_any_moment_nothing_that_was_saved_is_lost(path: Path) -> None:
    chance = random.Random(0)
    saved: dict[int, str] = {}
    for round_number in range(200):
        writer = write_in_background(path, f"round{round_number}", 100_000)
        assert writer.stdout
        for _ in range(chance.randrange(1, 20)):
            number, text = writer.stdout.readline().split()
            saved[int(number)] = text
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.communicate()[0].splitlines():
            if len(line.split()) == 2:
                number, text = line.split()
                saved[int(number)] = text
    database = sqlite3.connect(path)
    rows = dict(database.execute("SELECT id, text FROM messages").fetchall())
    assert saved.items() <= rows.items() and len(saved) > 200
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with History(path) as history:
        assert all(history.conversation(session.id).messages for session in history.sessions())
