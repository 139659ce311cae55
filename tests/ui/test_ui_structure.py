"""/schema: the form of the answers of a chat."""

import json
from pathlib import Path

import pytest
from support.repl import type_in

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.structure import Structure
from llmchat.ui.repl import Repl
from llmchat.ui.slash.registry import registry
from llmchat.ui.status import bottom_line


def kind_of(repl: Repl) -> Structure | None:
    return repl.state.chat.sampling.structure


def test_schema_is_shown_set_and_removed(repl: Repl) -> None:
    assert type_in(repl, "/schema") == "free text\n"
    assert type_in(repl, "/schema name, age int") == "schema: name, age\n"
    shown = type_in(repl, "/schema")
    assert shown.startswith("schema: name, age\n{") and '"type": "integer"' in shown
    assert type_in(repl, "/schema off") == "free text\n" and kind_of(repl) is None


@pytest.mark.parametrize(
    ("typed", "structure", "shown"),
    [
        ("choice yes no", Structure("choice", '["yes", "no"]'), "choice: yes, no"),
        ("regex [a-z]+", Structure("regex", "[a-z]+"), "regex: [a-z]+"),
        ("json", Structure("json"), "any JSON object"),
    ],
)
def test_first_word_names_another_kind(
    repl: Repl, typed: str, structure: Structure, shown: str
) -> None:
    assert type_in(repl, f"/schema {typed}") == f"{shown}\n"
    assert kind_of(repl) == structure


def test_grammar_file_is_shown_whole(repl: Repl, tmp_path: Path) -> None:
    (tmp_path / "g.lark").write_text('start: "a" b\nb: "c"\n')
    type_in(repl, f"/schema grammar {tmp_path}/g.lark")
    assert type_in(repl, "/schema").endswith('\nstart: "a" b\nb: "c"\n')


def test_error_keeps_the_structure(repl: Repl) -> None:
    type_in(repl, "/schema choice yes no")
    error = type_in(repl, "/schema name strr")
    assert "the field `name` has the unknown type `strr`" in error
    assert kind_of(repl) == Structure("choice", '["yes", "no"]')


def test_set_lists_and_changes_it(repl: Repl) -> None:
    assert "  schema              none         answer form" in type_in(repl, "/set")
    type_in(repl, "/set schema choice yes no")
    assert "* schema              choice: yes, no" in type_in(repl, "/set")
    type_in(repl, "/set schema default")
    assert kind_of(repl) is None


def test_status_line_names_the_kind(repl: Repl) -> None:
    type_in(repl, "/schema name")
    assert "scripted · schema" in bottom_line(repl.state.chat, 80)


def test_session_restores_it(repl: Repl) -> None:
    type_in(repl, "/schema choice one two", "a question")
    chat = repl.state.chat
    session = chat.history.find(chat.session or "")
    again = Chat(chat.preset, ScriptedEngine(["one"]), chat.history, session=session.id)
    again.restore_settings(json.loads(json.dumps(session.settings)))
    assert again.sampling.structure == Structure("choice", '["one", "two"]')


def test_tab_completes_kinds_and_files(repl: Repl, tmp_path: Path) -> None:
    (tmp_path / "g.lark").write_text("x")
    complete = registry.get("schema").complete  # type: ignore[union-attr]
    assert complete is not None
    words = [one if isinstance(one, str) else one[0] for one in complete(repl.state, "")]
    assert {"off", "json", "regex", "choice", "grammar"} <= set(words)
    assert list(complete(repl.state, f"grammar {tmp_path}/g")) == [f"grammar {tmp_path}/g.lark"]
