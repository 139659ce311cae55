"""Thoughts parted from answers at every cut; an engine that loads behind the typing."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Finish, Sampling, Unloaded
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.stream_filters import ThoughtFilter
from llmchat.errors import OutOfResources
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.prompt import Prompt
from llmchat.reply import reply
from llmchat.reply_parser import Thinking

MARKS = ("<think>", "</think>")
PRESET = replace(find("smollm2"), format=get_format("chatml"))


def parted(pieces: list[str], inside: bool = False) -> tuple[str, str]:
    """What was thought and what was said."""
    room = ThoughtFilter(MARKS, inside=inside)
    parts = [part for piece in pieces for part in room.feed(piece)] + room.flush()
    assert all(text for _, text in parts)
    return "".join(text for thought, text in parts if thought), "".join(
        text for thought, text in parts if not thought
    )


@given(st.data())
def test_every_cut_gives_the_same(data: st.DataObject) -> None:
    text, pieces = "<think>a < b <thin</think>The answer</thin <think>more</think> end<th", []
    while text:
        size = data.draw(st.integers(1, len(text)))
        pieces.append(text[:size])
        text = text[size:]
    assert parted(pieces) == ("a < b <thinmore", "The answer</thin  end<th")


def test_a_template_may_open_the_thinking_itself() -> None:
    assert parted(["so", " it is</th", "ink>Yes"], inside=True) == ("so it is", "Yes")


def test_thoughts_are_events_and_never_enter_the_conversation() -> None:
    talk = Chat(
        PRESET, ScriptedEngine(["<think>The user greets me.</think>\n\nHello!"]), History(None)
    )
    events = list(talk.send("hi"))
    assert (
        "".join(event.text for event in events if isinstance(event, Thinking))
        == "The user greets me."
    )
    assert "".join(event.text for event in events if isinstance(event, Chunk)) == "Hello!"
    assert talk.conversation.messages[-1].text == "Hello!"
    assert (
        talk.history.messages(talk.session or "")[-1].details["thinking"] == "The user greets me."
    )
    list(talk.send("again"))
    assert "greets" not in talk.engine.prompts[-1].text  # type: ignore[attr-defined]


def test_an_answer_is_gone_on_with_behind_its_own_words() -> None:
    engine = ScriptedEngine(["and they lived happily."])
    events = list(
        reply(
            Conversation().say("Tell a tale").answer("Once upon a time"), PRESET, engine, Sampling()
        )
    )
    assert (
        engine.prompts[0].text
        == "<|im_start|>user\nTell a tale<|im_end|>\n<|im_start|>assistant\nOnce upon a time"
    )
    assert isinstance(events[-1], Finish)


def test_first_use_waits_for_the_load() -> None:
    gate = threading.Event()

    def load() -> ScriptedEngine:
        assert gate.wait(30)
        return ScriptedEngine(["hello"], context=77)

    told: list[bool] = []
    engine = LoadingEngine(load, "a model")
    engine.when_ready(lambda: told.append(True))
    assert engine.describe() == "a model (loading …)" and not engine.ready and not told
    engine.start()
    gate.set()
    assert (
        engine.context == 77
        and engine.describe() == "scripted"
        and engine.count("a b") == 3
        and told == [True]
    )
    *chunks, finish = engine.stream(Prompt("hi", ()), Sampling())
    assert "".join(
        chunk.text for chunk in chunks if isinstance(chunk, Chunk)
    ) == "hello" and isinstance(finish, Finish)
    engine.unload()


def test_each_use_raises_the_error_of_a_failed_load() -> None:
    def load() -> ScriptedEngine:
        raise OutOfResources("too large")

    engine = LoadingEngine(load, "a model")
    for _ in range(2):
        with pytest.raises(OutOfResources, match="too large"):
            engine.context  # noqa: B018
    assert engine.describe() == "a model (not loaded)"
    engine.unload()


def test_model_that_is_unloaded_while_it_loads_is_freed_when_it_is_there() -> None:
    gate, freed = threading.Event(), threading.Event()

    class Freed(ScriptedEngine):
        def unload(self) -> None:
            super().unload()
            freed.set()

    def load() -> ScriptedEngine:
        assert gate.wait(30)
        return Freed()

    engine = LoadingEngine(load, "a model")
    engine.start()
    engine.unload()
    assert not freed.is_set()
    gate.set()
    assert freed.wait(30)
    with pytest.raises(Unloaded):
        engine.count("a")


def test_model_that_is_unloaded_before_its_first_use_is_never_loaded() -> None:
    def load() -> ScriptedEngine:
        raise AssertionError("loaded")

    engine = LoadingEngine(load, "a model")
    engine.unload()
    with pytest.raises(Unloaded, match="a model was unloaded"):
        engine.count("a")
    assert engine.describe() == "a model (not loaded)"
