"""A message is stored before it is echoed, and before its model has loaded."""

import io
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from support.checkpoints import save_tiny
from support.repl import preset
from support.repl_terminal import start

from llmchat.chat import Chat
from llmchat.cli import main
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import OutOfResources
from llmchat.history import History
from llmchat.ui.message_sender import MessageSender
from llmchat.ui.repl import Repl


class _App:
    """Stands for the running prompt: it looks into the history when the line is given back."""

    def __init__(self, state: Any):
        self._state = state
        self.seen: list[list[str]] = []

    def exit(self, result: str, style: str) -> None:
        session = self._state.chat.session
        self.seen.append(
            [record.message.text for record in self._state.chat.history.messages(session)]
            if session
            else []
        )


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("hello\nyou", ["hello\nyou"]),
        ('"""a block"""', ["a block"]),
        ("/context", []),
        ("/unknown", []),
        ("  ", []),
        ("//x", ["/x"]),
    ],
)
def test_enter_stores_a_message_before_the_line_is_given_back(
    repl: Repl,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    stored: list[str],
) -> None:
    app = _App(repl.state)
    monkeypatch.setattr(sys.modules[PromptSession.__module__], "get_app", lambda: app)
    enter = repl.prompt_line.buffer.accept_handler
    assert enter
    enter(Buffer(document=Document(typed)))
    assert app.seen == [stored]
    repl.take(typed)
    said = [message.text for message in repl.state.chat.conversation.messages]
    assert said == (([*stored, "one"]) if stored else []), "it is stored once, and answered"


def test_killed_before_the_model_has_loaded_the_message_is_there(tmp_path: Path) -> None:
    child = start(tmp_path, "--loading")
    child.send("keep me\r")
    with History(tmp_path / "data" / "history.db") as history:
        until = time.monotonic() + 30
        while not history.sessions() and time.monotonic() < until:
            time.sleep(0.01)
        child.kill(signal.SIGKILL)
        child.wait()
        session = history.sessions()[0].id
        again = Chat(preset(), ScriptedEngine(["here"]), history, session=session)
        assert [message.text for message in again.conversation.messages] == ["keep me"]
        list(again.regenerate())
        assert [message.text for message in history.conversation(session).messages] == [
            "keep me",
            "here",
        ]


def test_a_one_shot_keeps_its_question_when_the_model_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    path = tmp_path / "data" / "llmchat" / "history.db"
    seen = []

    def fail(*_: object) -> None:
        with History(path) as history:
            seen.append(
                [
                    message.text
                    for message in history.conversation(history.sessions()[0].id).messages
                ]
            )
        raise OutOfResources("memory ran out")

    monkeypatch.setattr("llmchat.models.opener.load", fail)
    model = str(save_tiny(tmp_path / "model"))
    assert main(["chat", "-m", model, "--format", "chatml", "keep me"]) == OutOfResources.exit_code
    assert "error: memory ran out" in capsys.readouterr().err
    assert seen == [["keep me"]]


def test_enter_does_not_wait_for_the_model_to_count_a_file(repl: Repl) -> None:
    """A message with a file is stored when the model has loaded; Enter returns at once."""
    chat, engine = repl.state.chat, LoadingEngine(ScriptedEngine, "a model")
    chat.engine, repl.state.attached["a.txt"] = engine, "alpha"
    sender = MessageSender(repl.state)
    sender.store("what is in it?")
    assert chat.conversation.messages == () and engine.wrapped is None
    engine.start()
    sender.answer("what is in it?", "what is in it?")
    (question,) = chat.conversation.messages
    assert question.input == "alpha"
