"""/remember, /forget and /memory."""

from support.repl import type_in

from llmchat.memory.facts import Facts
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
