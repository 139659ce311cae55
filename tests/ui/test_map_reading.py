"""`--map`: material of any size is read in pieces, and a run that was stopped goes on."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from support.repl import preset
from support.scripted_chats import run_chat
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Prefill, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.history import History
from llmchat.prompt import Prompt
from llmchat.ui.map_reading import Notes, notes_for, with_notes

FACTS = {3: "The captain hid the compass.", 9: "The cook found it in 1932."}


class Reader(ScriptedEngine):
    """Repeats the facts of the text that it is given. stop_at: the request that is interrupted."""

    def __init__(self, stop_at: int = 0, wordy: int = 0, **options: Any):
        super().__init__(**options)
        self.requests: list[str] = []
        self._stop_at, self._wordy = stop_at, wordy

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        self.requests.append(prompt.messages[-1].input)
        if len(self.requests) == self._stop_at:
            raise KeyboardInterrupt
        said = [fact for fact in FACTS.values() if fact in self.requests[-1]]
        self._replies = (" ".join(said) + " well" * self._wordy or "Nothing.",)
        return super().stream(prompt, sampling)


class Lines:
    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []
        self.printed: list[str] = []

    def show(self, text: str, done: int, total: int) -> None:
        self.shown.append((text, done, total))

    def print(self, line: str) -> None:
        self.printed.append(line)

    def close(self) -> None:
        pass


def book() -> str:
    chapters = [f"Chapter {n}. " + "Nothing happens here. " * 30 for n in range(12)]
    for number, fact in FACTS.items():
        chapters[number] += fact
    return "\n\n".join(chapters)


def question() -> Message:
    text = book()
    return Message("user", "Where is the compass?", text, files=(("book.txt", len(text)),))


def chat(engine: Reader) -> Chat:
    return Chat(preset(), engine, History(None))


def test_every_piece_is_read_and_what_matters_is_the_material_of_the_answer() -> None:
    engine, lines = Reader(context=1000), Lines()
    asked = with_notes(chat(engine), question(), Notes(None), lines)
    words = " ".join(engine.requests)
    assert all(f"Chapter {n}." in words for n in range(12))
    assert [name for name, _ in asked.files] == ["notes 1", "notes 2", "what the notes are"]
    assert all(fact in asked.input for fact in FACTS.values())
    assert "Nothing" not in asked.input and asked.text == "Where is the compass?"
    pieces = len(engine.requests)
    assert lines.printed[0].endswith(f"tokens in {pieces} pieces")
    assert lines.printed[-1].startswith("note: read ") and "before the answer" in lines.printed[-1]
    assert [done for _, done, _ in lines.shown] == list(range(pieces))


def test_notes_that_do_not_fit_together_are_joined_in_groups() -> None:
    engine = Reader(context=1000, wordy=100)
    asked = with_notes(chat(engine), question(), Notes(None), Lines())
    pieces = sum("Chapter" in one for one in engine.requests)
    assert len(engine.requests) > pieces > 5
    assert len(asked.files) - 1 < pieces
    assert all(fact in asked.input for fact in FACTS.values())
    # The last request must leave room for the answer.
    Chat(preset(), engine, History(None)).fit(_conversation(asked))


def _conversation(message: Message) -> Any:
    from llmchat.conversation import Conversation

    return Conversation((message,))


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    world, whole = make_world(tmp_path), Reader(context=1000)
    expected = with_notes(chat(whole), question(), Notes(None), Lines())
    stopped = Reader(context=1000, stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        talk = chat(stopped)
        with_notes(talk, question(), notes_for(talk, world, question(), keep=True), Lines())
    again, lines = Reader(context=1000), Lines()
    talk = chat(again)
    notes = notes_for(talk, world, question(), keep=True)
    assert with_notes(talk, question(), notes, lines) == expected
    assert again.requests == whole.requests[3:]
    assert lines.printed[0].endswith("pieces, 3 of them read before")
    assert notes.path and notes.path.stat().st_mode & 0o077 == 0
    notes.forget()
    assert list((world.data / "map").iterdir()) == []


def test_another_question_or_model_has_notes_of_its_own(tmp_path: Path) -> None:
    world, talk = make_world(tmp_path), chat(Reader())
    one = notes_for(talk, world, question(), keep=True).path
    assert one != notes_for(talk, world, Message("user", "Who?", book()), keep=True).path
    talk.made_by = {"model": "other"}
    assert one != notes_for(talk, world, question(), keep=True).path


def test_half_a_line_of_a_killed_run_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    Notes(path).keep("a", "one")
    with path.open("a") as file:
        file.write('\n["b", "tw')
    Notes(path).keep("c", "three")
    notes = Notes(path)
    assert [notes.get(key) for key in "abc"] == ["one", None, "three"]


def test_a_window_without_room_for_pieces_is_one_error() -> None:
    with pytest.raises(UsageError, match="a window of 400 tokens has no room for pieces"):
        with_notes(chat(Reader(context=400)), question(), Notes(None), Lines())


def test_it_works_in_a_pipe_and_says_what_it_costs(tmp_path: Path) -> None:
    arguments = ("--map", "--json", "--context", "1500", "Where is it?")
    code, answer, notes = run_chat(tmp_path, *arguments, stdin=book())
    assert code == 0 and "You wrote" in json.loads(answer)["text"]
    assert notes.startswith("note: reading ") and "before the answer" in notes
    assert not list((tmp_path / "data" / "map").iterdir())


def test_it_takes_a_question_and_material(tmp_path: Path) -> None:
    code, _, notes = run_chat(tmp_path, "--map", "Where is it?")
    assert code == 2 and "--map takes a PROMPT and piped text or -f" in notes
