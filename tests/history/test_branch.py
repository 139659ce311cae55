"""Parallel writers in one session: each answer follows its own question."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.history import BranchWriter, History, migrations
from llmchat.history.repair import untangle
from llmchat.presets import Preset, find, get_format
from llmchat.ui.branches import branches

PRESET: Preset = replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling())
ASKER = Path(__file__).parents[1] / "support" / "ask_in_session.py"


def chat(history: History, session: str | None = None, *replies: str) -> Chat:
    return Chat(PRESET, ScriptedEngine(replies), history, session=session)


def ask(talk: Chat, text: str) -> None:
    for _ in talk.send(text):
        pass


def spoken(history: History, session: str) -> list[str]:
    return [message.text for message in history.conversation(session).messages]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db")


@pytest.fixture
def session(history: History) -> str:
    talk = chat(history, None, "a0")
    ask(talk, "q0")
    return talk.session or ""


def test_the_second_writer_goes_on_in_a_session_of_its_own_and_is_told(
    history: History, session: str
) -> None:
    one, two = chat(history, session, "a1"), chat(history, session, "a2")
    first, second = one.send("q1"), two.send("q2")
    list(second)
    list(first)
    assert one.session == session and one.take_notice() == ""
    assert two.session != session
    assert two.take_notice() == (
        f"another llmchat continued session {session}; this chat continues as session {two.session}"
    )
    assert two.take_notice() == "", "the notice comes once"
    assert spoken(history, session) == ["q0", "a0", "q1", "a1"]
    assert spoken(history, two.session or "") == ["q0", "a0", "q2", "a2"]
    ask(one, "q3")
    assert one.session == session, "whoever came first stays where it is"


def test_a_session_that_is_opened_during_an_answer_is_joined_before_its_question(
    history: History, session: str
) -> None:
    one = chat(history, session, "a1")
    answer = one.send("q1")
    next(answer)
    two = chat(history, session, "a2")
    assert [message.text for message in two.conversation.messages] == ["q0", "a0"]
    ask(two, "q2")
    list(answer)
    assert spoken(history, session) == ["q0", "a0", "q1", "a1"]
    assert spoken(history, two.session or "") == ["q0", "a0", "q2", "a2"]


def test_a_question_whose_process_died_is_kept_and_gone_on_from(
    history: History, session: str
) -> None:
    chat(history, session).send("never answered").close()
    two = chat(history, session, "a2")
    ask(two, "q2")
    assert two.session == session and spoken(history, session) == [
        "q0",
        "a0",
        "never answered",
        "q2",
        "a2",
    ]


@pytest.mark.parametrize(
    ("step", "left"),
    [
        (lambda talk: talk.undo(), []),
        (lambda talk: talk.instruct("be kind"), ["q0", "a0", "be kind"]),
        (lambda talk: list(talk.regenerate()), ["q0", "mine"]),
        (lambda talk: list(talk.resume()), ["q0", "a0mine"]),
        (lambda talk: talk.show_alternative(-1), ["q0", "old"]),
        (lambda talk: list(talk.compact()), ["q0", "a0", "mine"]),
    ],
    ids=["undo", "system", "regen", "continue", "alt", "compact"],
)
def test_each_step_of_the_second_writer_leaves_the_first_one_alone(
    history: History, step: object, left: list[str]
) -> None:
    first = chat(history, None, "old", "a0")
    ask(first, "q0")
    list(first.regenerate())
    session = first.session or ""
    two = chat(history, session, "mine")
    ask(first, "q1")
    before = spoken(history, session)
    step(two)  # type: ignore[operator]
    assert spoken(history, session) == before
    assert two.session != session and spoken(history, two.session or "") == left
    assert [message.text for message in two.conversation.messages] == left


def test_a_mark_meets_the_message_that_was_meant(history: History, session: str) -> None:
    one, two = chat(history, session, "a1"), chat(history, session)
    one.undo()
    ask(one, "another beginning")
    two.mark(1, "pinned")
    marks = history._database.rows("SELECT text FROM messages WHERE mark = 'pinned'")
    assert [row["text"] for row in marks] == ["q0"]
    assert [message.mark for message in history.conversation(session).messages] == ["", ""]


def test_a_fork_is_of_what_its_writer_sees(history: History, session: str) -> None:
    one, two = chat(history, session, "a1"), chat(history, session)
    ask(one, "q1")
    assert spoken(history, two.fork()) == ["q0", "a0"]


def test_a_session_that_was_deleted_meanwhile_is_told(history: History, session: str) -> None:
    two = chat(history, session, "a2")
    history.delete(session)
    with pytest.raises(UsageError, match=f"the session {session} is gone"):
        ask(two, "q2")


def test_a_step_that_fails_leaves_the_line_as_it_was(history: History, session: str) -> None:
    line = BranchWriter(history, session)
    with pytest.raises(UsageError, match="only one answer"):
        line.alternative(1)
    assert (
        line.session == session
        and line.left_session is None
        and spoken(history, session) == ["q0", "a0"]
    )


steps = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["ask", "finish", "stop", "open", "regen", "undo"])
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_any_interleaving_keeps_each_answer_behind_its_question(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[int, str]]
) -> None:
    with History(tmp_path_factory.mktemp("many") / "history.db") as history:
        first = chat(history)
        ask(first, "q")
        chats = [chat(history, first.session) for _ in range(4)]
        answers: dict[int, object] = {}
        stopped: set[str] = set()
        for number, (who, what) in enumerate(actions):
            talk = chats[who]
            if what == "finish" and who in answers:
                list(answers.pop(who))  # type: ignore[call-overload]
            elif what == "stop" and who in answers:
                stopped.add(talk.conversation.messages[-1].text)
                answers.pop(who).close()  # type: ignore[attr-defined]
            elif who in answers:
                continue
            elif what == "ask":
                answers[who] = talk.send(f"question {number}")
                next(answers[who])  # type: ignore[call-overload]
            elif what == "open" and (latest := history.latest()):
                chats[who] = chat(history, latest.id)
            elif what == "regen" and talk.conversation.question >= 0:
                answers[who] = talk.regenerate()
                next(answers[who])  # type: ignore[call-overload]
            elif what == "undo" and talk.conversation.question >= 0:
                talk.undo()
        for answer in answers.values():
            list(answer)  # type: ignore[call-overload]
        for session in history.sessions():
            check(history.messages(session.id), stopped)
        for talk in chats:
            line = talk._stored._writer
            assert line is None or talk.conversation == line.conversation


def check(records: list, stopped: set[str]) -> None:  # type: ignore[type-arg]
    """Each answer quotes the message before it; only a stopped question has another after it."""
    for before, record in pairwise(records):
        assert before.message.role != record.message.role or before.message.text in stopped
        if record.message.role == "assistant":
            assert before.message.role == "user"
            quoted = f"You wrote:\n\n> {before.message.text}"
            assert record.message.text.startswith(quoted) or quoted.startswith(record.message.text)


def start(path: Path, session: str, name: str, count: int, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ASKER), str(path), session, name, str(count), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_at_once_each_keep_a_straight_line(history: History, session: str) -> None:
    assert history.path
    askers = [start(history.path, session, name, 6) for name in ("one", "two", "three")]
    for asker in askers:
        assert asker.stdout and asker.stdout.readline() == "open\n"
    told = []
    for asker in askers:
        assert asker.stdin
        asker.stdin.write("go\n")
        asker.stdin.flush()
    for asker in askers:
        told.append(json.loads(asker.communicate()[0]))
        assert asker.returncode == 0
    assert (
        len({one["session"] for one in told}) == 3 and sum(bool(one["notes"]) for one in told) == 2
    )
    for one in told:
        expected = ["q0", "a0"] + [
            f"{kind} {one['name']} {number}"
            for number in range(6)
            for kind in ("question", "answer to")
        ]
        assert spoken(history, one["session"]) == expected


def test_killed_during_an_answer_the_session_is_free_again(history: History, session: str) -> None:
    assert history.path
    asker = start(history.path, session, "one", 1, "hang")
    assert asker.stdout and asker.stdin and asker.stdout.readline() == "open\n"
    asker.stdin.write("go\n")
    asker.stdin.flush()
    assert asker.stdout.readline() == "asked\n"
    assert len(BranchWriter(history, session).ids) == 2, "another process is answering"
    os.kill(asker.pid, signal.SIGKILL)
    asker.communicate()
    assert len(BranchWriter(history, session).ids) == 3, "nobody is answering any more"
    talk = chat(history, session, "a1")
    list(talk.regenerate())
    assert talk.session == session and spoken(history, session) == [
        "q0",
        "a0",
        "question one 0",
        "a1",
    ]


# What was written before each writer had a line of its own.


def tangle(history: History, *written: tuple[str, str, float, float | None]) -> str:
    """Store a session that two processes wrote at once: one chain of messages, with their times."""
    session, tip = history.begin("m"), None
    with history.transaction():
        for role, text, created, took in written:
            details = {"prefill_s": took, "decode_s": 0.0} if took is not None else {}
            tip = history.insert(
                session, tip, Message(role, text), created=created, details=details
            )  # type: ignore[arg-type]
    return session


def reopen(history: History) -> History:
    """The same file after the step that repairs it has been taken once more."""
    assert history.path
    history.close()
    database = sqlite3.connect(history.path)
    database.execute(f"PRAGMA user_version = {migrations.STEPS.index(untangle)}")
    database.commit()
    database.close()
    return History(history.path)


@pytest.mark.parametrize(
    ("written", "straight"),
    [
        (
            [("user", "q1", 1, None), ("user", "q2", 2, None),
             ("assistant", "a1", 9, 8), ("assistant", "a2", 9.5, 7)],
            ["q1", "a1", "q2", "a2"],
        ),
        (
            [("user", "q1", 1, None), ("user", "q2", 5, None),
             ("assistant", "a2", 9, 4), ("assistant", "a1", 9.5, 8)],
            ["q1", "a1", "q2", "a2"],
        ),
        (
            [("user", "q1", 1, None), ("user", "q2", 5, None), ("assistant", "a1", 6, 5),
             ("user", "q3", 7, None), ("assistant", "a2", 8, 3), ("assistant", "a3", 9, 2)],
            ["q1", "a1", "q2", "a2", "q3", "a3"],
        ),
        (
            [("user", "q1", 1, None), ("user", "q2", 5, None), ("assistant", "a1", 6, 5),
             ("user", "q3", 7, None), ("assistant", "a2", 8, 3)],
            ["q1", "a1", "q2", "a2", "q3"],
        ),
        (
            [("user", "failed", 1, None), ("user", "q2", 5, None), ("assistant", "a2", 6, 1)],
            ["failed", "q2", "a2"],
        ),
        (
            [("assistant", "Hello!", 1, None), ("user", "q", 2, None),
             ("assistant", "one", 2, None), ("assistant", "two", 2, None)],
            ["Hello!", "q", "one", "two"],
        ),
    ],
    ids=[
        "side by side", "the later first", "a third question", "one under way",
        "a failed question", "an import",
    ],
)  # fmt: skip
def test_a_tangled_history_is_straightened_once(
    history: History, written: list, straight: list[str]
) -> None:  # type: ignore[type-arg]
    session = tangle(history, *written)
    with reopen(history) as repaired:
        assert spoken(repaired, session) == straight
        again = reopen(repaired)
    with again:
        assert spoken(again, session) == straight and len(again.tree(session)) == len(written)
        talk = chat(again, session, "more")
        ask(talk, "and now?")
        assert spoken(again, session)[-2:] == ["and now?", "more"]


def test_an_answer_too_many_becomes_an_alternative(history: History) -> None:
    session = tangle(
        history, ("user", "q", 1, None), ("assistant", "one", 2, 1), ("assistant", "two", 9, 0.1)
    )
    with reopen(history) as repaired:
        assert spoken(repaired, session) == ["q", "one"]
        assert BranchWriter(repaired, session).alternative(1) == (2, 2) and spoken(
            repaired, session
        ) == [
            "q",
            "two",
        ]


def test_sessions_that_share_tangled_messages_lose_none(history: History) -> None:
    session = tangle(
        history,
        ("user", "q1", 1, None),
        ("user", "q2", 2, None),
        ("assistant", "a1", 9, 8),
        ("assistant", "a2", 9.5, 7),
    )
    line = BranchWriter(history, session)
    with history.transaction():
        fork = history.fork(session, line.ids[:3])
    with reopen(history) as repaired:
        assert spoken(repaired, fork) == ["q1", "a1"] and len(repaired.tree(fork)) == 4
        assert repaired.delete(session) == 2 and spoken(repaired, fork) == ["q1", "a1"]


moments = st.floats(0, 20, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "system", "summary"]),
            moments,
            st.one_of(st.none(), moments),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_repair_keeps_every_message_and_does_nothing_the_second_time(
    written: list[tuple[str, float, float | None]],
) -> None:
    with History(None) as history:
        session = tangle(
            history,
            *(
                (role, str(number), created, took)
                for number, (role, created, took) in enumerate(written)
            ),
        )
        untangle(history._database.connection)
        first, everything = spoken(history, session), history.tree(session)
        assert len(everything) == len(written)
        untangle(history._database.connection)
        assert spoken(history, session) == first and history.tree(session) == everything


@pytest.mark.parametrize("loop", ["itself", "another"])
def test_a_loop_of_parents_ends(history: History, session: str, loop: str) -> None:
    with history.transaction():
        history._database.execute(
            "UPDATE messages SET parent = ? WHERE id = 1", (1 if loop == "itself" else 2,)
        )
    with reopen(history) as damaged:
        assert spoken(damaged, session) == ["q0", "a0"] and len(damaged.tree(session)) == 2
        assert branches(damaged.tree(session), damaged.messages(session)[-1].id) == [
            "* user: q0",
            "* assistant: a0",
        ]
        talk = chat(damaged, session, "a1")
        ask(talk, "q1")
        assert spoken(damaged, session) == ["q0", "a0", "q1", "a1"]
        assert damaged.delete(session) == 4


def test_a_cancelled_answer_is_stored_behind_its_question(history: History, session: str) -> None:
    one, two = chat(history, session, "one two three"), chat(history, session, "other")
    answer = one.send("q1")
    for event in answer:
        if isinstance(event, Chunk):
            break
    ask(two, "q2")
    answer.close()
    assert spoken(history, session) == ["q0", "a0", "q1", "one"] and one.finish == Finish(
        "cancelled"
    )
