"""Commands that mark, attach, take back and continue: what they say is what happens."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repl import preset, said, type_in

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.ui import status
from llmchat.ui.repl import Repl


def fates(repl: Repl) -> list[str]:
    return [entry.fate for entry in repl.state.chat.next_window().ledger]


@pytest.mark.parametrize(
    ("lines", "fate"),
    [
        (("/drop 1", "/pin 2"), "pinned"),
        (("/drop 2", "/pin 1"), "pinned"),
        (("/pin 1", "/drop 2"), "excluded"),
        (("/pin 2", "/unpin 1"), "sent"),
        (("/drop 1", "/pin 1"), "pinned"),
    ],
)
def test_the_last_mark_of_a_turn_holds(repl: Repl, lines: tuple[str, ...], fate: str) -> None:
    type_in(repl, "a", "b", *lines)
    assert fates(repl) == [fate, fate, "sent", "sent"]
    kept = repl.state.chat.history.conversation(repl.state.chat.session or "")
    assert kept == repl.state.chat.conversation


def test_each_attached_file_has_a_line_of_its_own(repl: Repl, tmp_path: Path) -> None:
    for name, text in (("a.txt", "one two"), ("b.txt", "three\n\nfour five")):
        (tmp_path / name).write_text(text)
        type_in(repl, f"/file {tmp_path / name}")
    type_in(repl, "hello")
    ledger = json.loads(type_in(repl, "/context --json"))["ledger"]
    rows = [(entry["role"], entry["start"], entry["fate"]) for entry in ledger]
    assert rows[:3] == [
        ("file", "a.txt", "attached"),
        ("file", "b.txt", "attached"),
        ("user", "hello", "sent"),
    ]
    assert [entry["tokens"] for entry in ledger[:2]] == [8, 11]
    state = repl.state.chat
    assert state.history.conversation(state.session or "") == state.conversation, (
        "stored and read again"
    )
    assert state.conversation.messages[0].input == "a.txt:\none two\n\nb.txt:\nthree\n\nfour five"


def test_undo_takes_back_a_summary_before_the_turn_it_stands_for(repl: Repl) -> None:
    shown = type_in(repl, "a", "b", "/compact", "/undo")
    assert shown.endswith("the summary was removed\n") and said(repl) == ["a", "one", "b", "two"]
    assert type_in(repl, "/undo") == "back to: a\n" and said(repl) == ["a", "one"]
    type_in(repl, "/compact", "c", "/undo 2")
    assert said(repl) == ["a", "one"]


def test_save_writes_the_file_it_is_given(repl: Repl, tmp_path: Path) -> None:
    type_in(repl, "a question")
    assert type_in(repl, f"/save {tmp_path / 'chat.md'}") == f"saved to {tmp_path / 'chat.md'}\n"
    assert "a question" in (tmp_path / "chat.md").read_text()
    assert "must end in" in type_in(repl, f"/save {tmp_path / 'chat'}")


def test_a_window_beyond_the_model_is_refused(repl: Repl) -> None:
    shown = type_in(repl, "/set context 999999")
    assert shown.startswith("error: a window of 999,999 tokens is more than the model's 2,048\n")
    assert repl.state.chat.preset.context.tokens == 8192
    assert "error" not in type_in(repl, "/set context 2048")


def test_continue_is_offered_only_where_it_is_taken(
    repl: Repl, monkeypatch: pytest.MonkeyPatch
) -> None:
    repl.state.chat.engine._replies = ("word " * 100,)  # type: ignore[attr-defined]
    assert "[cut off at max_tokens; /continue resumes it]" in type_in(
        repl, "/set max_tokens 3", "hello"
    )
    assert "error" not in type_in(repl, "/continue")
    monkeypatch.setattr(type(repl.state.chat.engine), "resumes", False, raising=False)
    assert "[cut off at max_tokens]" in type_in(repl, "hello")


def test_a_full_window_offers_no_continue() -> None:
    state = Chat(preset(), ScriptedEngine(["word " * 500], context=200), History(None))
    list(state.send("hello"))
    assert state.finish and state.finish.reason == "length" and not state.resumable
    state.sampling = replace(state.sampling, max_tokens=5)
    state.undo()
    list(state.send("hello"))
    assert state.finish.reason == "length" and state.resumable


def test_facts_are_written_for_people(repl: Repl) -> None:
    shown = type_in(repl, "/show info")
    assert "134 million" in shown and "tokens=8,192" in shown and "pulled             no" in shown


def test_the_status_line_tells_of_the_chat_as_it_is(repl: Repl) -> None:
    type_in(repl, "a", "b")
    before = status.bottom_line(repl.state.chat, 80)
    type_in(repl, "/drop 1")
    dropped = repl.state.chat.window
    assert (
        dropped
        and dropped.tokens < repl.state.chat.engine.context
        and status.bottom_line(repl.state.chat, 80) != before
    )
    type_in(repl, "/undo 2")
    assert status.bottom_line(repl.state.chat, 80).strip() == "scripted"
