"""Answers and chats in a notebook."""

from pathlib import Path
from typing import Any

import pytest
from support.scripted_api import scripted

from llmchat.api import notebook


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the cell's output was, each time that it changed."""
    from IPython.core import displaypub
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    texts: list[str] = []

    class Publisher(displaypub.DisplayPublisher):
        def publish(self, data: Any, **more: Any) -> None:
            texts.append(data.get("text/markdown", ""))

    monkeypatch.setattr(shell, "display_pub", Publisher())
    return texts


def test_say_shows_markdown_that_grows(tmp_path: Path, shown: list[str]) -> None:
    chat = scripted(tmp_path, "**One** two.")
    chat.say("Count.")._ipython_display_()
    assert shown[0] == "" and shown[-1] == "**One** two."
    assert chat.answer and chat.answer._repr_markdown_() == "**One** two."


def test_an_interrupt_keeps_what_was_shown(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "_INTERVAL_S", 0.0)
    chat = scripted(tmp_path, "one two three")

    def interrupted() -> Any:
        with chat.say("Count.") as pieces:
            for piece in pieces:
                yield piece
                if "two" in piece:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notebook.show_growing(interrupted())
    assert shown[-1] == "one two" == chat.messages[-1].text


def test_a_chat_is_html_in_which_messages_are_text(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "It is **bold** <script>alert(1)</script> [x](javascript:y)")
    chat.ask("What is <b>this</b>?", input={"a&b.txt": "<i>material</i>"})
    html = chat._repr_html_()
    assert "<strong>bold</strong>" in html and "&lt;script&gt;" in html
    assert "<script>" not in html and "<b>this" not in html and "<i>" not in html
    assert "a&amp;b.txt" in html and 'href="javascript' not in html
    assert repr(chat) == "<llmchat.Chat smollm2, 1 question>"
