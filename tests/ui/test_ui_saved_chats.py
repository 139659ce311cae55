"""Saved chats in the REPL: going on with one, looking back, answering again with a hint."""

import pytest
from msgspec.structs import replace
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from support.repl import preset, said, type_in

from llmchat.chat import Chat
from llmchat.conversation import Conversation
from llmchat.engines.scripted import ScriptedEngine
from llmchat.evaluate.replay import replay
from llmchat.history import Session
from llmchat.models.opener import ModelOpener
from llmchat.ui import slash, transcript
from llmchat.ui.keys import CommandCompleter
from llmchat.ui.repl import Repl


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (86400 * 3, "3 days ago"),
        (86400 * 800, "2 years ago"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert transcript.age(1e9 - seconds, 1e9) == text


def test_history_prints_the_chat(repl: Repl) -> None:
    assert "the chat is empty" in type_in(repl, "/history")
    type_in(repl, "/system Be brief.", "first\nline two", "second")
    assert (
        type_in(repl, "/history")
        == "[system] Be brief.\n\n> first\n… line two\none\n\n> second\ntwo\n\n"
    )


def test_load_without_a_session_lists_titles_ages_and_models(repl: Repl) -> None:
    assert "there are no saved chats" in type_in(repl, "/load")
    type_in(repl, "a question")
    here = repl.state.chat.session
    first, hint = type_in(repl, "/load").splitlines()
    assert first == f"* {here}  a question · just now · smollm2" and hint.startswith(
        "`/load ID` continues one"
    )
    offered = CommandCompleter(repl.state).get_completions(Document("/load "), CompleteEvent())
    assert [one.display_meta_text for one in offered] == ["a question · just now · smollm2"]


def test_loading_shows_title_and_last_exchange(repl: Repl) -> None:
    type_in(repl, "q1", "\n".join(f"line {n}" for n in range(9)))
    session = repl.state.chat.session
    shown = type_in(repl, "/new", f"/load {session}").partition("continuing")[2]
    assert shown.splitlines()[2:] == [
        "> line 0",
        *(f"… line {n}" for n in range(1, 6)),
        "… and 3 more lines",
        "two",
        "",
    ]


def test_continuing_shows_title_and_last_exchange(
    repl: Repl, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(repl, "a question")
    state = repl.state
    again = Repl(
        Chat(preset(), ScriptedEngine(["x"]), state.chat.history, session=state.chat.session),
        state.world,
        state.opener,
    )

    def leave(*arguments: object, **more: object) -> str:
        raise EOFError

    monkeypatch.setattr(again.prompt_line, "read", leave)
    again.loop()
    shown = state.world.stdout.getvalue()  # type: ignore[attr-defined]
    assert (
        f"continuing {state.chat.session}: a question · just now · smollm2\n\n> a question\none\n"
        in shown
    )


def test_load_opens_the_model_and_the_settings_of_the_session(repl: Repl) -> None:
    type_in(repl, "/model other", "/set top_k 7", "to other")
    other = repl.state.chat.session
    type_in(repl, "/new")
    repl.state.switch(model="smollm2", engine="scripted")
    type_in(repl, "to smollm2", f"/load {other}")
    assert repl.state.chat.preset.name == "other" and repl.state.chat.sampling.top_k == 7
    changed = [line for line in type_in(repl, "/set").splitlines() if line.startswith("*")]
    assert len(changed) == 2 and "top_k" in changed[0]


def test_a_session_whose_model_is_gone_goes_on_with_the_present_one(repl: Repl) -> None:
    type_in(repl, "a question")
    chat = repl.state.chat
    chat.history.remember(chat.session or "", "gone", {"model": "/nowhere/gone"}, {"top_k": 7})
    lines = type_in(repl, "/new", f"/load {chat.history.sessions()[0].id}").splitlines()
    assert lines[1].startswith("note: its model, gone, cannot be opened: ")
    assert lines[2] == "note: continuing with smollm2; /model or /lora choose another"
    assert said(repl) == ["a question", "one"] and chat.sampling.top_k == 7
    assert "two" in type_in(repl, "again")


def test_a_hint_is_given_for_one_answer_and_recorded(repl: Repl) -> None:
    type_in(repl, "a question", "/regen shorter, please")
    engine, chat = repl.state.chat.engine, repl.state.chat
    assert "user\na question\n\nshorter, please<|im_end|>" in engine.prompts[-1].text  # type: ignore[attr-defined]
    assert said(repl) == ["a question", "two"] and chat.last_hint == "shorter, please"
    records = chat.history.messages(chat.session or "")
    assert records[1].details["hint"] == "shorter, please"
    assert "answer 1 of 2:" in type_in(
        repl, "/alt 1"
    ) and "answer 2 of 2 (hint: shorter, please):" in type_in(repl, "/alt 2")
    asked = ScriptedEngine(["two"])
    assert [one.same for one in replay(records, preset(), asked)] == [
        True
    ] and "shorter" in asked.prompts[0].text
    type_in(repl, "/continue")
    assert "shorter, please" in engine.prompts[-1].text, "what goes on was asked with the hint"  # type: ignore[attr-defined]
    type_in(repl, "next")
    assert "shorter" not in engine.prompts[-1].text  # type: ignore[attr-defined]


def test_a_hint_goes_behind_the_last_question() -> None:
    state = Conversation().say("a").answer("b")
    assert (
        state.with_hint("briefly").messages[0].text == "a\n\nbriefly"
        and state.with_hint("") is state
    )
    assert Conversation().say("", "material").with_hint("briefly").messages[0].text == "briefly"
    assert Conversation().with_hint("x") == Conversation()


def test_an_answer_is_chosen_by_its_number(repl: Repl) -> None:
    type_in(repl, "/set temperature 1", "a", "/regen", "/regen")
    assert (
        type_in(repl, "/alt 1") == "answer 1 of 3:\none\n\n"
        and type_in(repl, "/alt 3") == "answer 3 of 3:\nthree\n\n"
    )
    assert type_in(repl, "/alt 4").splitlines() == [
        "error: there is no answer 4",
        "hint: the last question has 3; /regen makes another",
    ]
    assert "takes a number, next or prev" in type_in(repl, "/alt x") and said(repl)[-1] == "three"


def test_edit_takes_the_new_text(repl: Repl) -> None:
    type_in(repl, "a", "b", "/edit c")
    assert said(repl) == ["a", "one", "c", "three"]


@pytest.mark.parametrize("width", [40, 59, 60, 80, 120])
def test_help_is_grouped_and_fits(repl: Repl, width: int) -> None:
    repl.state.width = lambda: width
    shown = type_in(repl, "/help").splitlines()
    assert max(map(len, shown)) < width
    heads = [line for line in shown if line.endswith(":") and not line.startswith(" ")]
    assert heads == [
        "Conversation:",
        "Context window:",
        "Model and settings:",
        "Tools:",
        "Memory:",
        "Saved chats:",
        "Information:",
    ]
    assert all(any(line.startswith(f"  /{one.name}") for line in shown) for one in slash.registry)


def test_what_a_session_is_in_a_line() -> None:
    session = Session("id", "", "m", 0, 0, (), 0, 0)
    assert (
        transcript.describe(session, session.updated + 1).startswith("(no title) · ")
        and transcript.describe(replace(session, model=""), 1).count("·") == 1
    )


def test_the_opener_of_a_loaded_session_adapts_its_own_model(repl: Repl) -> None:
    opener = ModelOpener(repl.state.world, {"weights": "bf16", "temperature": 1.0})
    opened = opener.open_as("s", {"model": "other"})
    assert opened.opens == {"model": "other"} and opened.preset.sampling.temperature == 1.0
