"""Answers asked again."""

from collections.abc import Generator

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import FoundPassage, Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.evaluate.replay import differences, replay
from llmchat.found_passages import with_passages
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.prompt import Prompt

PRESET = replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling())


def recorded() -> Chat:
    talk = Chat(
        PRESET,
        ScriptedEngine(["one two", "three four", "five six"]),
        History(None),
        made_by={"model": "m", "base": "b@1"},
    )
    list(talk.send("a"))
    list(talk.send("b"))
    events = talk.send("c")
    while not isinstance(next(events), Chunk):
        pass
    events.close()
    return talk


def test_the_same_and_not_the_same() -> None:
    talk = recorded()
    records = talk.history.messages(talk.session or "")
    same = list(replay(records, PRESET, ScriptedEngine(["one two", "three four", "five six"])))
    assert [outcome.same for outcome in same] == [True, True, True], (
        "the stopped answer is the beginning of the whole one"
    )
    other = list(replay(records, PRESET, ScriptedEngine(["one two", "three five"])))
    assert (
        other[0].same
        and other[1].same is False
        and other[1].at == len("three f")
        and other[1].now == "three five"
    )


def test_the_prompt_is_the_one_of_then() -> None:
    talk = recorded()
    engine = ScriptedEngine(["x"])
    list(replay(talk.history.messages(talk.session or ""), PRESET, engine))
    assert [prompt.text for prompt in engine.prompts] == [
        prompt.text for prompt in talk.engine.prompts
    ]  # type: ignore[attr-defined]


def test_passages_are_sent_again_as_they_were_then() -> None:
    passage = FoundPassage(1, "bridge.md", 0, 20, 0.5)
    question = with_passages(Message("user", "When?"), [(passage, "Opened in 1932.")], "Cite [1].")
    dropped = with_passages(
        Message("user", "And?"), [(replace(passage, mark="excluded"), "Not this.")]
    )
    talk = Chat(PRESET, ScriptedEngine(["In 1932 [1].", "Yes."]), History(None))
    list(talk.ask(question))
    list(talk.ask(dropped))
    engine = ScriptedEngine(["In 1932 [1].", "Yes."])
    outcomes = list(replay(talk.history.messages(talk.session or ""), PRESET, engine))
    assert [outcome.same for outcome in outcomes] == [True, True]
    texts = [prompt.text for prompt in engine.prompts]
    assert texts == [prompt.text for prompt in talk.engine.prompts]  # type: ignore[attr-defined]
    assert "Opened in 1932." in texts[0] and "Cite [1]." in texts[0]
    assert "Not this." not in texts[1]


class Watched(ScriptedEngine):
    """Records how often it is unloaded, and the tokens of each prompt that it had read before."""

    def __init__(self, replies: list[str]):
        super().__init__(replies)
        self.unloads = 0
        self.cached_tokens: list[int] = []

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        for event in super().stream(prompt, sampling):
            if isinstance(event, Finish):
                self.cached_tokens.append(event.cached_tokens)
            yield event

    def unload(self) -> None:
        self.unloads += 1
        super().unload()


def test_each_answer_is_read_from_the_start_by_a_model_that_stays_loaded() -> None:
    talk, engine = recorded(), Watched(["one two", "three four", "five six"])
    list(replay(talk.history.messages(talk.session or ""), PRESET, engine))
    assert engine.unloads == 0 and engine.cached_tokens == [0, 0, 0]


def test_what_made_an_answer_is_stored_with_it() -> None:
    talk = recorded()
    details = talk.history.messages(talk.session or "")[1].details
    assert details["made_by"] == {"model": "m", "base": "b@1"} and "seed" in details
    assert (
        details["window"]["sent"] == 1
        and details["context"] == {"tokens": 8192}
        and details["reason"] == "stop"
    )
    assert differences(details["made_by"], {"model": "m", "base": "b@2"}) == [
        "base was b@1, is b@2"
    ]


def test_what_cannot_be_asked_again_is_said() -> None:
    talk = recorded()
    list(talk.send("d"))
    list(talk.resume())
    outcomes = list(
        replay(talk.history.messages(talk.session or ""), PRESET, ScriptedEngine(["x"]))
    )
    assert outcomes[-1].same is None and "/continue" in outcomes[-1].why
