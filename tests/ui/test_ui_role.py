"""/role: the role of a chat, changed while it goes on."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repl import make_repl, preset, said, type_in
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.models.opener import ModelOpener
from llmchat.settings import Settings, resolve
from llmchat.tools.opening import open_toolbox
from llmchat.ui.repl import Repl
from llmchat.ui.slash.registry import registry
from llmchat.ui.status import bottom_line

ROLES = {
    "tr": 'prompt = "To $language: $input"\nsystem = "Translate."\n[values]\nlanguage = "English"\n'
    "[sampling]\ntemperature = 0.5",
    "macro": 'once = true\nturns = ["Criticise.", "Again: $input"]',
    "calc": 'tools = ["calculator"]\nschema = "n int"',
    "other": 'model = "other"',
    "broken": 'tools = ["nothing"]\nsystem = "no"',
}


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    repl = make_repl(tmp_path)
    repl.state.opener = ModelOpener(repl.state.world, {"model": "other"})
    opened = repl.state.opener.open()
    repl.state.chat.switch_model(opened.preset, repl.state.chat.engine, {}, opened.opens)
    folder = repl.state.world.own_roles
    folder.mkdir()
    for name, text in ROLES.items():
        (folder / f"{name}.toml").write_text(text)
    return repl


def test_role_changes_questions_settings_and_system_text(repl: Repl) -> None:
    chat = repl.state.chat
    engine = chat.engine
    assert type_in(repl, "/role tr language=French") == "role: tr language=French\n"
    type_in(repl, "Hi")
    assert said(repl)[0] == "Translate." and said(repl)[1] == "To French: Hi"
    assert chat.sampling.temperature == 0.5 and chat.engine is engine
    assert " · tr · " in bottom_line(chat, 100)
    assert type_in(repl, "/role off") == "no role\n"
    type_in(repl, "Hi")
    assert said(repl)[-2] == "Hi" and chat.conversation.system == ""
    assert chat.sampling.temperature == 0.25 and chat.role == ""


def test_what_was_set_by_hand_stays_except_what_the_role_sets(repl: Repl) -> None:
    type_in(repl, "/set temperature 1", "/set top_k 7", "/system Mine.", "/role tr")
    sampling = repl.state.chat.sampling
    assert (sampling.temperature, sampling.top_k) == (0.5, 7)
    assert repl.state.chat.conversation.system == "Translate."
    type_in(repl, "/system Mine.", "/role off")
    assert repl.state.chat.conversation.system == "Mine."


def test_turns_follow_the_first_question_and_are_shown(repl: Repl) -> None:
    type_in(repl, "/role macro")
    shown = type_in(repl, "Q")
    asked = [one.text for one in repl.state.chat.conversation.messages if one.role == "user"]
    assert asked == ["Q", "Criticise.", "Again: Q"]
    assert "turn 2 of 3: Criticise." in shown and "turn 3 of 3: Again: Q" in shown
    assert "one" in shown and "two" in shown and "three" in shown
    type_in(repl, "R")
    assert said(repl)[-2] == "R"
    type_in(repl, "/new", "S")
    assert said(repl)[0] == "S" and len(said(repl)) == 6


def test_a_role_of_one_question_begins_in_the_middle_of_a_chat(repl: Repl) -> None:
    type_in(repl, "Before.", "/role macro", "Q", "After.", "/role macro", "R")
    asked = [one.text for one in repl.state.chat.conversation.messages if one.role == "user"]
    again = ["Criticise.", "Again: R"]
    assert asked == ["Before.", "Q", "Criticise.", "Again: Q", "After.", "R", *again]


def test_turns_end_where_one_is_stopped(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(repl, "/role macro")
    monkeypatch.setattr(
        "llmchat.ui.repl.run_turn", lambda state, events: bool([*events]) and len(said(repl)) < 3
    )
    shown = type_in(repl, "Q")
    assert "[1 of the role's turns skipped]" in shown and len(said(repl)) == 4


def test_tools_and_schema_of_a_role_go_with_it(repl: Repl) -> None:
    settings: Settings = resolve(repl.state.world, {})
    with open_toolbox(repl.state.world, settings) as tools:
        repl.state.chat.tools = tools
        type_in(repl, "/role calc")
        assert [tool.name for tool in tools.active] == ["calculator"]
        assert repl.state.chat.sampling.structure
        type_in(repl, "/role off")
        assert not tools.active and repl.state.chat.sampling.structure is None


def test_error_leaves_the_chat_as_it_was(repl: Repl) -> None:
    type_in(repl, "/role tr")
    settings: Settings = resolve(repl.state.world, {})
    with open_toolbox(repl.state.world, settings) as tools:
        repl.state.chat.tools = tools
        shown = type_in(repl, "/role broken", "/role nope", "/role tr x=1")
    assert "there is no tool `nothing`" in shown and "there is no role `nope`" in shown
    assert "the role `tr` has no value `x`" in shown
    assert repl.state.chat.role == "tr" and repl.state.chat.conversation.system == "Translate."
    assert repl.state.opener.options().system == "Translate."


def test_model_of_a_role_is_opened_and_closed_with_it(repl: Repl) -> None:
    chat = repl.state.chat
    repl.state.opener = ModelOpener(repl.state.world, {"engine": "scripted"})
    opened = repl.state.opener.open()
    chat.switch_model(opened.preset, opened.engine, {}, opened.opens)
    type_in(repl, "Hi", "/role tr")
    assert chat.engine is opened.engine
    type_in(repl, "/role other")
    assert chat.preset.name == "other" and chat.engine is not opened.engine
    assert len(chat.conversation.spoken) == 2
    type_in(repl, "/role off")
    assert chat.preset.name == "smollm2" and chat.role == ""


def test_another_model_keeps_the_role(repl: Repl) -> None:
    chat = repl.state.chat
    type_in(repl, "/role tr", "/model other")
    assert (chat.preset.name, chat.sampling.temperature, chat.role) == ("other", 0.5, "tr")


def test_list_shows_every_role(repl: Repl) -> None:
    shown = type_in(repl, "/role")
    assert shown.startswith("no role\n") and "translate " in shown and "macro" in shown
    found = registry.get("role")
    assert found and found.complete
    names = [one if isinstance(one, str) else one[0] for one in found.complete(repl.state, "")]
    assert {"tr", "translate", "off"} <= {*names}


def test_saved_chat_brings_its_role_back(tmp_path: Path, repl: Repl) -> None:
    with History(tmp_path / "history.db") as history:
        chat = Chat(preset(), ScriptedEngine(["a", "b"]), history)
        state = Repl(chat, repl.state.world, repl.state.opener).state
        repl.state = state
        type_in(repl, "/role tr language=French")
        list(state.ask("Hi"))
        first = chat.session
        type_in(repl, "/new", "/role off")
        list(state.ask("Plain"))
        second = chat.session
        type_in(repl, f"/load {first}")
        assert state.role and chat.role == "tr language=French" and chat.session == first
        type_in(repl, f"/load {second}")
        assert state.role is None and chat.role == "" and chat.session == second
        stored = {one.id: one.settings.get("role") for one in history.sessions()}
        assert stored == {first: "tr language=French", second: None}


def test_imported_chat_brings_no_role(tmp_path: Path) -> None:
    from llmchat.models.sessions import role_of_session

    world, notes = make_world(tmp_path), list[str]()
    with History(None) as history:
        history.begin("m", {}, {"role": "translate"})
        chat = Chat(preset(), ScriptedEngine(["a"]), history)
        chat.use_role("translate")
        list(chat.send("x"))
        session = history.latest()
    assert session and role_of_session(session, world, notes.append)
    assert role_of_session(replace(session, imported=True), world, notes.append) is None
    assert not notes
