"""`/web`: an answer from pages, with its sources below it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback_web import Handler, Reply, Site, serving
from support.repl import make_repl, type_in

from llmchat.conversation import Message
from llmchat.tools.web.settings import WebSettings
from llmchat.ui.repl import Repl
from llmchat.ui.web_question import with_web

TEXT = "The bridge was built in 1932."


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(pages={"/a": Reply(TEXT.encode(), "text/plain")})) as site:
        site.results = [{"url": f"{site.url}/a", "title": "Hit", "content": "extract"}]
        yield site


@pytest.fixture
def repl(tmp_path: Path, site: Site) -> Repl:
    repl = make_repl(tmp_path)
    settings = {"LLMCHAT_SEARXNG_URL": site.url, "LLMCHAT_ALLOW_PRIVATE": "1"}
    repl.state.world.env.update(settings)  # type: ignore[attr-defined]
    return repl


def test_the_answer_is_from_the_pages_and_its_sources_are_below(repl: Repl, site: Site) -> None:
    shown = type_in(repl, "/web When was the bridge built?")
    assert shown == f"searching the web …\none\n[1] {site.url}/a\n\n"
    question = repl.state.chat.conversation.messages[0]
    assert question.text == "When was the bridge built?"
    assert question.files[0][0] == f"[1] {site.url}/a"
    assert f"[1] {site.url}/a\n{site.url}/a\n--- material written by others" in question.input
    assert TEXT in question.input
    assert "[1]" not in type_in(repl, "thanks")


def test_attached_files_come_after_the_sources(repl: Repl, tmp_path: Path) -> None:
    repl.state.attached["notes.txt"] = "my notes"
    type_in(repl, "/web When?")
    question = repl.state.chat.conversation.messages[0]
    assert [name.partition(" ")[0] for name, _ in question.files] == ["[1]", "notes.txt"]
    assert repl.state.attached == {}


def test_a_search_that_fails_keeps_the_chat_and_the_files(repl: Repl, site: Site) -> None:
    site.results = []
    repl.state.attached["notes.txt"] = "my notes"
    assert "the web has no results for `When?`" in type_in(repl, "/web When?")
    assert repl.state.attached == {"notes.txt": "my notes"}
    assert repl.state.chat.conversation.messages == ()
    assert type_in(repl, "hello").endswith("one\n\n")


def test_an_interrupt_stops_the_search_and_keeps_the_chat(repl: Repl, site: Site) -> None:
    def interrupt(handler: Handler) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        site.released.wait(10)

    type_in(repl, "hello")
    site.pages["/search"] = interrupt
    assert type_in(repl, "/web When?") == "searching the web …\n[stopped]\n"
    assert len(repl.state.chat.conversation.messages) == 2
    assert type_in(repl, "thanks") == "two\n\n"


def test_it_takes_a_question_and_the_network(repl: Repl, site: Site) -> None:
    assert "/web takes a question" in type_in(repl, "/web")
    repl.state.world.env["LLMCHAT_OFFLINE"] = "1"  # type: ignore[index]
    assert "offline mode is on" in type_in(repl, "/web x")
    assert site.asked == []


def test_the_sources_fit_into_their_part_of_the_window(repl: Repl, site: Site) -> None:
    site.pages["/a"] = Reply(b"a b c d e f g h " * 5000, "text/plain")
    settings = WebSettings.of(repl.state.world, repl.state.opener.options())
    chat = repl.state.chat
    question = with_web(chat, Message("user", "a?"), settings)
    assert len(chat.sources.take()) == 1
    assert 500 < chat.engine.count(question.input) <= chat.engine.context // 2
