"""Passages beside a question: what is sent of them, and what the ledger shows."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repl import preset

from llmchat.chat import Chat
from llmchat.conversation import Conversation, FoundPassage, Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.found_passages import passages_of, with_passages, without_passages
from llmchat.history import History
from llmchat.history.export import to_json
from llmchat.history.imports import read
from llmchat.window import Window, fit

ONE = FoundPassage(1, "a.md", 0, 9, 0.5, "Top")
TWO = FoundPassage(2, "b.md", 5, 14, 0.25)
TEXTS = {1: "[1] alpha", 2: "[2] bravo"}


def question(*passages: FoundPassage, text: str = "which?", own: str = "own file") -> Message:
    message = Message("user", text, own, files=(("own.txt", len(own)),))
    return with_passages(message, [(one, TEXTS[one.n]) for one in passages], "Cite [1].")


def window(*messages: Message, context: int = 2048) -> Window:
    chosen, _ = fit(Conversation(messages), preset(), ScriptedEngine(), context, 20)
    return chosen


def ledger(window: Window) -> list[tuple[str, str, str]]:
    return [(one.role, one.fate, one.start) for one in window.ledger]


def test_passages_are_the_first_parts_of_the_material() -> None:
    message = question(ONE, TWO)
    assert message.input == "[1] alpha\n\n[2] bravo\n\nCite [1].\n\nown file"
    assert passages_of(message) == [(ONE, "[1] alpha"), (TWO, "[2] bravo")]
    assert without_passages(message).materials == [("own.txt", "own file")]


def test_the_ledger_shows_each_passage_with_tokens_and_score() -> None:
    entries = window(question(ONE, TWO)).ledger
    assert [(one.number, one.part, one.tokens, one.score) for one in entries[:2]] == [
        (1, 1, 5, 0.5),
        (1, 2, 5, 0.25),
    ]
    assert ledger(window(question(ONE, TWO))) == [
        ("passage", "attached", "[1] a.md › Top"),
        ("passage", "attached", "[2] b.md"),
        ("file", "attached", "how to cite"),
        ("file", "attached", "own.txt"),
        ("user", "sent", "which?"),
    ]


def test_an_excluded_passage_is_not_sent_and_stays_in_the_ledger() -> None:
    chosen = window(question(ONE, replace(TWO, mark="excluded")))
    assert "bravo" not in chosen.messages[-1].input and "alpha" in chosen.messages[-1].input
    assert ("passage", "excluded", "[2] b.md") in ledger(chosen)
    assert chosen.dropped == 0


def test_without_passages_nothing_is_said_about_them() -> None:
    chosen = window(question(replace(ONE, mark="excluded")))
    assert chosen.messages[-1].input == "own file"


def test_passages_give_way_to_the_words_of_the_user() -> None:
    """The worst passage leaves first; the question and the attached file stay."""
    asked = question(ONE, TWO, own="w " * 60)
    needed = window(asked).tokens + 20
    chosen = window(asked, context=needed - 1)
    assert "alpha" in chosen.messages[-1].input and "bravo" not in chosen.messages[-1].input
    assert ("passage", "dropped", "[2] b.md") in ledger(chosen) and chosen.dropped == 0
    smaller = window(asked, context=chosen.tokens + 19)
    assert smaller.messages[-1].input == "w " * 60 and smaller.messages[-1].text == "which?"


def test_a_pinned_passage_stays_when_its_turn_leaves_the_window() -> None:
    first = question(replace(ONE, mark="pinned"), TWO, own="w " * 100)
    others = (Message("assistant", "x " * 40), Message("user", "and then?"))
    whole = window(first, *others)
    assert whole.messages[-1].input == ""
    chosen = window(first, *others, context=whole.tokens + 10)
    assert [one.text for one in chosen.messages] == ["and then?"]
    assert chosen.messages[-1].input == "[1] alpha"
    assert ledger(chosen)[:2] == [
        ("passage", "pinned", "[1] a.md › Top"),
        ("passage", "dropped", "[2] b.md"),
    ]


def asked_chat(history: History) -> Chat:
    chat = Chat(preset(), ScriptedEngine(["one", "two"]), history)
    list(chat.ask(question(ONE, TWO)))
    return chat


def test_marks_of_passages_are_stored_and_undone(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    chat = asked_chat(history)
    chat.mark_passage(1, 2, "excluded")
    again = Chat(preset(), ScriptedEngine(), history, session=chat.session)
    assert again.conversation.messages[0].passages == (ONE, replace(TWO, mark="excluded"))
    assert "bravo" not in again.current_window().messages[0].input
    again.mark_passage(1, 2, "")
    assert again.conversation.messages[0] == question(ONE, TWO)
    with pytest.raises(UsageError, match=r"message 1 has 2 passages, so no 1\.3"):
        again.mark_passage(1, 3, "pinned")


def test_regenerating_sends_the_same_passages() -> None:
    chat = asked_chat(History(None))
    list(chat.regenerate())
    prompts = chat.engine.prompts  # type: ignore[attr-defined]
    assert prompts[0].text == prompts[1].text and "[2] bravo" in prompts[1].text


def test_an_export_keeps_passages(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    chat = asked_chat(history)
    session = history.find(chat.session or "")
    exported = to_json(session, history.messages(session.id))
    (imported,) = read(exported, "x.json")
    assert imported.messages[0].message == question(ONE, TWO)
