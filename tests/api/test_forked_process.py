"""A model that was loaded before a fork."""

import os
from pathlib import Path

import pytest
from support.scripted_api import scripted

from llmchat.errors import LlmchatError


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_process_gets_an_error_and_its_parent_goes_on(tmp_path: Path) -> None:
    chat, answer = scripted(tmp_path, "One.", "Two."), tmp_path / "answer"
    assert str(chat.ask("first")) == "One."
    child = os.fork()
    if child == 0:
        try:
            answer.write_text(str(chat.ask("again")))
        except LlmchatError as error:
            answer.write_text(f"{error.message}\n{error.hint}")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert answer.read_text() == (
        "this model was loaded before the process was forked\n"
        "load it in the new process, or start processes with `spawn`"
    )
    assert str(chat.ask("second")) == "Two."
