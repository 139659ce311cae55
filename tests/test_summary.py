"""Running summaries: what they contain, in how many steps, and what they replace."""

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.presets import ContextPolicy, find, get_format
from llmchat.summary import SAMPLING, Summary, summarise
from llmchat.window import SUMMARY_HEADING

PRESET = replace(
    find("smollm2"),
    format=get_format("chatml"),
    context=ContextPolicy("summary", tokens=500, low_water=0.5),
    sampling=Sampling(max_tokens=80),
)


def whole(messages: list[Message], known: str, engine: ScriptedEngine, limit: int) -> str:
    pieces = summarise(messages, known, PRESET, engine, limit)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return str(end.value)


def test_the_model_is_told_the_messages_and_the_facts_known_before() -> None:
    engine = ScriptedEngine(["They met."])
    said = [Message("user", "I am Ann.", "a letter"), Message("assistant", "Hello Ann.")]
    assert whole(said, "It is Monday.", engine, 2000) == "They met."
    prompt = engine.prompts[0].text
    assert (
        "It is Monday." in prompt and "User: a letter\n\nI am Ann.\nAssistant: Hello Ann." in prompt
    )


def test_more_than_a_window_is_taken_in_parts_that_carry_the_facts_on() -> None:
    engine = ScriptedEngine(
        ["first part", "second part", "third part", "fourth part"], context=2000
    )
    said = [Message("user", f"message {number} " + "word " * 50) for number in range(20)]
    result = whole(said, "", engine, 900)
    assert (
        len(engine.prompts) > 1
        and result
        == ["first part", "second part", "third part", "fourth part"][len(engine.prompts) - 1]
    )
    assert all(len(engine.encode(prompt)) + SAMPLING.max_tokens <= 900 for prompt in engine.prompts)
    assert "first part" in engine.prompts[1].text and "message 0 " not in engine.prompts[1].text
    told = "".join(prompt.text for prompt in engine.prompts)
    assert all(f"message {number} " in told for number in range(20)), "no message is left out"


def test_one_message_that_is_too_long_is_cut_not_refused() -> None:
    engine = ScriptedEngine(["short"], context=2000)
    assert whole([Message("user", "word " * 3000)], "", engine, 600) == "short"


def chat() -> Chat:
    return Chat(PRESET, ScriptedEngine(["an answer of five words"], context=2000), History(None))


def test_a_full_window_is_summarised_before_the_answer() -> None:
    talk, summaries = chat(), 0
    for number in range(20):
        events = list(talk.send(f"question {number} " + "word " * 30))
        if any(isinstance(event, Summary) for event in events):
            summaries += 1
            assert isinstance(events[0], Summary), "the summary comes first"
        assert any(isinstance(event, Chunk) for event in events)
    assert talk.window and 1 <= summaries < 10, "not at each turn"
    assert talk.window.dropped == 0 and any(
        entry.fate == "summarised" for entry in talk.window.ledger
    )
    assert (
        talk.window.messages[0].role == "system" and SUMMARY_HEADING in talk.window.messages[0].text
    )
    sent = [message.text for message in talk.window.messages]
    gone = [
        entry.start
        for entry in talk.window.ledger
        if entry.fate == "summarised" and entry.role == "user"
    ]
    assert not any(text.startswith(start) for text in sent for start in gone)
    stored = talk.history.conversation(talk.session or "")
    assert stored == talk.conversation and stored.summary and len(stored.spoken) == 40, (
        "nothing is lost"
    )


def test_undo_takes_back_the_summary_that_was_made_for_the_question() -> None:
    talk = chat()
    while talk.conversation.summary is None:
        list(talk.send("question " + "word " * 30))
    count = len(talk.conversation.spoken)
    talk.undo()
    assert talk.conversation.summary is None and len(talk.conversation.spoken) == count - 2
    list(talk.send("question " + "word " * 30))
    assert talk.conversation.summary


def test_regen_keeps_the_summary() -> None:
    talk = chat()
    while talk.conversation.summary is None:
        list(talk.send("question " + "word " * 30))
    summary = talk.conversation.summary
    assert (
        not any(isinstance(event, Summary) for event in talk.regenerate())
        and talk.conversation.summary == summary
    )


def test_compact_covers_everything_and_can_be_changed() -> None:
    talk = chat()
    list(talk.send("hello"))
    list(talk.compact())
    talk.set_summary("by hand")
    list(talk.send("next"))
    assert talk.window and [entry.fate for entry in talk.window.ledger] == [
        "sent",
        "summarised",
        "summarised",
        "sent",
    ]
    assert "by hand" in talk.window.messages[0].text
    assert Conversation(talk.conversation.messages).summary == Message(
        "summary", "by hand", covers=2
    )


def test_a_new_summary_is_told_the_old_one() -> None:
    talk = chat()
    list(talk.send("hello"))
    list(talk.compact())
    talk.set_summary("the fact of the first summary")
    list(talk.send("more"))
    list(talk.compact())
    prompt = talk.engine.prompts[-1].text  # type: ignore[attr-defined]
    assert (
        "the fact of the first summary" in prompt
        and "User: more" in prompt
        and "User: hello" not in prompt
    )
