"""/remember, /forget and /memory."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.repl import make_repl, preset, type_in

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.memory.facts import Facts
from llmchat.memory.of_chat import ChatMemory
from llmchat.ui.fact_proposals import offer_facts
from llmchat.ui.repl import Repl


def system_of(repl: Repl) -> str:
    """The system text of the last prompt."""
    first = repl.state.chat.engine.prompts[-1].messages[0]  # type: ignore[attr-defined]
    return first.text if first.role == "system" else ""


def test_what_is_remembered_is_off_until_it_is_switched_on(repl: Repl) -> None:
    shown = type_in(repl, "/remember I live in Graz")
    assert shown.startswith("remembered as 1: I live in Graz\nmemory is off: `/memory on` uses")
    type_in(repl, "hello")
    assert "Graz" not in system_of(repl)
    assert type_in(repl, "/memory on") == "   1  I live in Graz\nmemory is on; 1 fact\n"
    type_in(repl, "hello")
    assert system_of(repl).endswith("\n- I live in Graz")


def test_a_fact_counts_from_the_next_chat(repl: Repl) -> None:
    type_in(repl, "/memory on", "hello")
    assert "it counts from the next chat on" in type_in(repl, "/remember I have a dog")
    type_in(repl, "and now?")
    assert "dog" not in system_of(repl)
    type_in(repl, "/new", "hello")
    assert "dog" in system_of(repl)


def test_context_shows_what_is_remembered(repl: Repl) -> None:
    type_in(repl, "/remember I live in Graz", "/memory on", "hello")
    assert " memory    " in type_in(repl, "/context")


def test_a_fact_is_forgotten_by_its_number_or_its_words(repl: Repl) -> None:
    type_in(repl, "/remember I live in Graz", "/remember I have a dog", "/memory on")
    assert type_in(repl, "/forget 1") == "forgotten: I live in Graz\n"
    type_in(repl, "hello")
    assert "Graz" not in system_of(repl)
    assert type_in(repl, "/forget DOG") == "forgotten: I have a dog\n"
    assert Facts.of(repl.state.world).all() == []


def test_what_is_not_clear_is_not_forgotten(repl: Repl) -> None:
    type_in(repl, "/remember I like tea", "/remember I like rain")
    assert "/forget takes the number of a fact" in type_in(repl, "/forget")
    assert "2 facts contain `like`\nhint: `/forget` takes 1 or 2" in type_in(repl, "/forget like")
    assert "no fact contains `dog`" in type_in(repl, "/forget dog")
    assert "there is no fact 7" in type_in(repl, "/forget 7")
    assert len(Facts.of(repl.state.world).all()) == 2


def test_invalid_arguments_are_refused(repl: Repl) -> None:
    assert "/remember takes a fact" in type_in(repl, "/remember")
    assert "/memory takes off, on or propose, not `maybe`" in type_in(repl, "/memory maybe")


def chatting(home: Path, *answers: str, use: str = "propose") -> tuple[Repl, list[str]]:
    """A REPL whose model proposes with its second answer, and the questions to the user.

    The user confirms what has `yes` in it.
    """
    repl = make_repl(home)
    facts = Facts.of(repl.state.world)
    engine = ScriptedEngine(["hello", *answers])
    memory = ChatMemory(facts, use)  # type: ignore[arg-type]
    repl.state.chat = Chat(preset(), engine, History(None), memory=memory)
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return "yes" in question

    repl.state.confirm = confirm
    return repl, asked


def kept(repl: Repl) -> Sequence[str]:
    return [fact.text for fact in Facts.of(repl.state.world).all()]


def test_each_proposed_fact_is_confirmed(tmp_path: Path) -> None:
    repl, asked = chatting(tmp_path, '["yes one", "no two", "YES one", "yes three"]')
    type_in(repl, "I am Ada")
    offer_facts(repl.state)
    assert asked == ["remember `yes one`?", "remember `no two`?", "remember `yes three`?"]
    assert kept(repl) == ["yes one", "yes three"]


def test_proposals_are_bound_to_a_list_of_short_texts(tmp_path: Path) -> None:
    repl, _ = chatting(tmp_path, "[]")
    bound = []
    engine = repl.state.chat.engine
    stream = engine.stream
    engine.stream = lambda prompt, sampling: (  # type: ignore[method-assign]
        bound.append(sampling) or stream(prompt, sampling)
    )
    type_in(repl, "I am Ada")
    offer_facts(repl.state)
    assert bound[-1].temperature == 0
    assert '"type":"array"' in bound[-1].structure.source


def test_only_what_the_user_wrote_since_the_last_proposals_is_read(tmp_path: Path) -> None:
    repl, _ = chatting(tmp_path, "[]", "hello", "[]")
    repl.state.attached["page.txt"] = "The user is a king."
    type_in(repl, "I am Ada")
    type_in(repl, "/new", "I am Bob")
    offer_facts(repl.state)
    prompts = [prompt.text for prompt in repl.state.chat.engine.prompts]  # type: ignore[attr-defined]
    assert "- I am Ada" in prompts[1] and "king" not in prompts[1] and "hello" not in prompts[1]
    assert "- I am Bob" in prompts[3] and "Ada" not in prompts[3]
    offer_facts(repl.state)
    assert len(repl.state.chat.engine.prompts) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", ['["yes cut o', "no JSON", "{}", "[1, null]", '["", " "]'])
def test_an_answer_without_facts_proposes_nothing(tmp_path: Path, answer: str) -> None:
    repl, asked = chatting(tmp_path, answer)
    type_in(repl, "I am Ada")
    offer_facts(repl.state)
    assert asked == [] and kept(repl) == []


def test_nothing_is_proposed_unasked(tmp_path: Path) -> None:
    repl, asked = chatting(tmp_path, '["yes"]', use="on")
    type_in(repl, "I am Ada")
    offer_facts(repl.state)
    repl.state.chat.memory.switch("propose")
    repl.state.confirm = None  # a pipe
    offer_facts(repl.state)
    assert asked == [] and len(repl.state.chat.engine.prompts) == 1  # type: ignore[attr-defined]


def test_known_facts_are_not_proposed_again(tmp_path: Path) -> None:
    repl, asked = chatting(tmp_path, '["Yes one", "yes two"]')
    type_in(repl, "/remember yes ONE", "I am Ada")
    offer_facts(repl.state)
    assert asked == ["remember `yes two`?"]
