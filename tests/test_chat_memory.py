"""Facts of the user in a chat: what the model is given, and what the ledger shows."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.repl import preset

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.memory.facts import Facts
from llmchat.memory.of_chat import HEADING, ChatMemory
from llmchat.presets import get_format


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    facts = Facts(tmp_path / "memory.sqlite")
    facts.add("I live in Graz")
    return facts


def chat_with(facts: Facts, form: str = "chatml", system: str = "Be brief.") -> Chat:
    made = replace(preset(system=system), format=get_format(form))
    return Chat(made, ScriptedEngine(["one"]), History(None), memory=ChatMemory(facts, "on"))


def ask(chat: Chat, text: str) -> str:
    list(chat.send(text))
    return chat.engine.prompts[-1].text  # type: ignore[attr-defined, no-any-return]


def test_facts_come_after_the_system_text(facts: Facts) -> None:
    prompt = ask(chat_with(facts), "hello")
    assert f"<|im_start|>system\nBe brief.\n\n{HEADING}\n- I live in Graz<|im_end|>" in prompt


@pytest.mark.parametrize("form", ["falcon", "alpaca", "llama-2", "vicuna"])
def test_a_format_takes_them_as_it_takes_a_system_text(facts: Facts, form: str) -> None:
    with_facts = ask(chat_with(facts, form), "hello")
    chat = chat_with(facts, form, system=f"Be brief.\n\n{HEADING}\n- I live in Graz")
    chat.memory.switch("off")
    assert with_facts == ask(chat, "hello")


def test_the_ledger_shows_what_is_sent(facts: Facts) -> None:
    chat = chat_with(facts)
    ask(chat, "hello")
    for window in (chat.window, chat.next_window()):
        assert window is not None
        entry = window.ledger[1]
        assert (entry.role, entry.fate, entry.start) == ("memory", "sent", "- I live in Graz")
        assert entry.tokens == chat.engine.count(f"{HEADING}\n- I live in Graz")


def test_the_prefix_stays_the_same_for_the_whole_chat(facts: Facts) -> None:
    chat = chat_with(facts)
    first = ask(chat, "hello")
    facts.add("I have a dog")
    second = ask(chat, "and now?")
    assert second.startswith(first)
    assert chat.finish is not None
    assert chat.finish.cached_tokens == len(chat.engine.encode(chat.engine.prompts[0]))  # type: ignore[attr-defined]
    chat.restart()
    assert "I have a dog" in ask(chat, "a new chat")


def test_nothing_of_it_is_stored_with_the_chat(facts: Facts) -> None:
    chat = chat_with(facts)
    ask(chat, "hello")
    assert chat.session
    stored = chat.history.messages(chat.session)
    assert [one.message.role for one in stored] == ["system", "user", "assistant"]
    assert "Graz" not in str(stored)


def test_a_chat_without_memory_is_given_nothing(facts: Facts) -> None:
    chat = Chat(preset(), ScriptedEngine(["one"]), History(None), memory=ChatMemory(facts))
    assert "Graz" not in ask(chat, "hello")
