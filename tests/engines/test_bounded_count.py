"""Texts that cannot fit are refused before they are counted to their end, and caches of texts are
bounded by size.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines.bounded_cache import SizedCache
from llmchat.engines.bounded_count import count_within, surely_over
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import ContextOverflow
from llmchat.presets import find, get_format
from llmchat.window import fit

CHATML = replace(find("smollm2"), format=get_format("chatml"))


class Counting(ScriptedEngine):
    """Keeps how many characters it was given to tokenise."""

    def __init__(self, context: int = 1000):
        super().__init__(context=context)
        self.read = 0

    def count(self, text: str) -> int:
        self.read += len(text)
        return super().count(text)

    def encode(self, prompt: object) -> list[int]:
        self.read += len(prompt.text)  # type: ignore[attr-defined]
        return super().encode(prompt)  # type: ignore[arg-type]


@given(st.text(alphabet="ab .", max_size=300), st.integers(1, 50), st.integers(1, 40))
def test_a_count_is_exact_unless_it_is_surely_over(text: str, times: int, limit: int) -> None:
    engine, text = ScriptedEngine(), text * times
    counted, exact = count_within(engine, text, limit), engine.count(text)
    assert counted == exact or (surely_over(counted, limit) and exact > limit)


@pytest.mark.parametrize("policy", ["refuse", "drop-oldest", "last-n", "summary"])
@pytest.mark.parametrize("where", ["user", "system", "tools"])
def test_a_prompt_far_beyond_the_window_is_refused_from_its_beginning(
    policy: str, where: str
) -> None:
    engine, huge = Counting(), "some words " * 400_000
    preset = replace(CHATML, context=replace(CHATML.context, policy=policy))
    messages = [Message("user", "hi" if where != "user" else huge)]
    if where == "system":
        messages.insert(0, Message("system", huge))
    if where == "tools":
        form = get_format("template").with_template("{{ tools }}{{ messages[0].content }}", {})
        preset = replace(preset, format=replace(form, template_tokens={"tools": huge}))
    with pytest.raises(ContextOverflow, match="tokens"):
        fit(Conversation(tuple(messages)), preset, engine, 1000, 100)
    assert engine.read < 50_000


def test_an_old_turn_far_beyond_the_window_is_left_out_without_being_counted_whole() -> None:
    engine = Counting()
    talk = (
        Message("user", "some words " * 400_000),
        Message("assistant", "yes"),
        Message("user", "and now?"),
    )
    window, prompt = fit(
        Conversation(talk),
        replace(CHATML, context=replace(CHATML.context, policy="drop-oldest")),
        engine,
        1000,
        100,
    )
    assert [message.text for message in window.messages] == [
        "and now?"
    ] and "some words" not in prompt.text
    assert window.ledger[0].fate == "dropped" and window.ledger[0].tokens == pytest.approx(
        1_600_000, rel=0.01
    )
    assert engine.read < 60_000


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 40)), max_size=60))
def test_a_cache_holds_no_more_than_its_limit(asked: list[tuple[str, int]]) -> None:
    cache: SizedCache[str, int] = SizedCache(len, lambda text, count: len(text), 100)
    for letter, times in asked:
        assert cache(letter * times) == times
        assert cache.held == sum(map(len, cache._entries)) <= 100


def test_a_cache_computes_what_it_holds_once() -> None:
    computed: list[str] = []
    cache: SizedCache[str, str] = SizedCache(
        lambda text: computed.append(text) or text, lambda text, value: len(text), 5
    )
    for text in ("aa", "bb", "aa", "cc", "aa", "bb", "longer"):
        assert cache(text) == text
    assert computed == ["aa", "bb", "cc", "bb", "longer"]
