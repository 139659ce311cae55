"""`llmchat chat --docs`: an answer with passages; its sources on stderr, in JSON, in exports."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.worlds import make_world

from llmchat import cli
from llmchat.attachments.documents import Documents
from llmchat.history import History, Session
from llmchat.history.export import to_html, to_markdown
from llmchat.memory.index import Index
from llmchat.memory.places import delete_index, index_path
from llmchat.settings import World

PRESET = """
format = "alpaca"
engine = "scripted"
parameters = 1
[base]
kind = "path"
repo = "/nowhere"
"""
TEXT = "# Bridge\n\nThe harbour bridge was opened in 1932.\n"
ASKED = "When was the harbour bridge opened?"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "old.toml").write_text(PRESET)
    (tmp_path / "bridge.md").write_text(TEXT)
    path = index_path(world, "city")
    path.parent.mkdir(parents=True)
    with Index.open(path, create=True) as index:
        index.add([tmp_path / "bridge.md"])
    return world


def chat(world: World, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["chat", "-m", "old", *arguments], world)
    streams: Any = world
    return code, streams.stdout.getvalue(), streams.stderr.getvalue()


def test_the_passage_is_sent_and_named(world: World, tmp_path: Path) -> None:
    code, answer, notes = chat(world, "--docs", "city", ASKED)
    assert code == 0 and "opened in 1932" in answer
    assert notes == f"[1] {tmp_path}/bridge.md › Bridge (characters 0-48)\n"


def test_sources_are_in_json(world: World, tmp_path: Path) -> None:
    code, answer, _ = chat(world, "--docs", "city", "--json", "-q", ASKED)
    (source,) = json.loads(answer)["sources"]
    score = source.pop("score")
    path = f"{tmp_path}/bridge.md"
    assert code == 0 and score > 0
    assert source == {
        "n": 1,
        "source": path,
        "title": f"{path} › Bridge",
        "start": 0,
        "end": 48,
        "text": TEXT.strip(),
    }
    assert json.loads(answer)["window"]["ledger"][0]["role"] == "passage"


def test_small_talk_is_sent_alone(world: World) -> None:
    code, answer, notes = chat(world, "--docs", "city", "--json", "thanks a lot")
    assert code == 0 and "sources" not in json.loads(answer) and notes == ""


def test_a_variable_and_the_config_file_name_indexes(world: World) -> None:
    world.config_file.write_text('docs = ["city"]\n')
    assert "1932" in chat(world, ASKED)[1]
    world.env["LLMCHAT_DOCS"] = "city"  # type: ignore[index]
    world.config_file.write_text("")
    assert chat(world, ASKED)[1].count("opened in 1932") == 2


def test_an_unknown_index_is_refused_before_the_model_is_opened(world: World) -> None:
    code, answer, notes = chat(world, "--docs", "town", "-m", "unknown", ASKED)
    assert (code, answer) == (2, "") and "there is no index `town`" in notes


def test_exports_keep_what_was_sent(world: World, tmp_path: Path) -> None:
    chat(world, "--docs", "city", ASKED)
    history = History(world.history_file)
    session = history.latest()
    assert session
    for export in (to_markdown, to_html):
        text = export(session, history.messages(session.id))
        assert f"[1] {tmp_path}/bridge.md" in text and "opened in 1932" in text


def test_a_continued_chat_searches_the_same_documents(world: World) -> None:
    chat(world, "--docs", "city", "Hello")
    assert "1932" in chat(world, "-c", ASKED)[1]
    assert history_of(world).settings == {"docs": ["city"]}


def test_a_flag_goes_before_the_documents_of_a_session(world: World) -> None:
    with Index.open(index_path(world, "empty"), create=True):
        pass
    chat(world, "--docs", "city", "Hello")
    assert "1932" not in chat(world, "-c", "--docs", "empty", ASKED)[1]
    assert history_of(world).settings == {"docs": ["empty"]}


def test_a_note_names_documents_that_are_gone(world: World) -> None:
    chat(world, "--docs", "city", "Hello")
    delete_index(index_path(world, "city"))
    code, _, notes = chat(world, "-c", ASKED)
    assert code == 0 and "note: this chat searched `city`: there is no index `city`\n" in notes


def test_an_imported_chat_chooses_no_documents(world: World) -> None:
    chat(world, "--docs", "city", "Hello")
    session = history_of(world)
    with Documents(world) as documents:
        documents.resume(replace(session, imported=True))
        assert documents.names == ()
        documents.resume(session)
        assert documents.names == ("city",)


def history_of(world: World) -> Session:
    session = History(world.history_file).latest()
    assert session
    return session
