"""The way of a message, over a scripted model and a history in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.stream_filters import Unescape
from llmchat.errors import ContextOverflow, UsageError
from llmchat.history import History
from llmchat.presets import Preset, find, get_format
from llmchat.reply import build_request, reply
from llmchat.reply_parser import ReplyParser
from llmchat.window import Window

PRESET: Preset = replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling())


def chat(*replies: str, **changes: object) -> Chat:
    return Chat(replace(PRESET, **changes), ScriptedEngine(replies), History(None))


def said(talk: Chat, text: str) -> str:
    return "".join(event.text for event in talk.send(text) if isinstance(event, Chunk))


def test_reply_tells_the_window_then_the_text_then_the_end() -> None:
    engine = ScriptedEngine(["Hello there."])
    events = list(reply(Conversation().say("hi"), PRESET, engine, Sampling()))
    assert isinstance(events[0], Window) and isinstance(events[-1], Finish)
    assert (
        "".join(event.text for event in events[1:-1] if isinstance(event, Chunk)) == "Hello there."
    )
    assert engine.prompts[0].text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_an_answer_is_bounded_by_the_window() -> None:
    engine = ScriptedEngine(["word " * 500], context=1000)
    preset = replace(PRESET, context=replace(PRESET.context, tokens=100))
    *_, finish = reply(Conversation().say("hi"), preset, engine, Sampling())
    assert isinstance(finish, Finish) and finish.reason == "length"
    assert finish.prompt_tokens + finish.reply_tokens == 100


@given(st.lists(st.text(alphabet=" \nab", max_size=4), max_size=8))
def test_an_answer_is_stripped_piece_by_piece(pieces: list[str]) -> None:
    engine, question = ScriptedEngine(), Conversation().say("hi")
    request = build_request(question, PRESET, engine, engine.context, Sampling())
    parser = ReplyParser(PRESET, request)
    events = [*map(Chunk, pieces), Finish("stop")]
    *chunks, finish = [shown for event in events for shown in parser.feed(event)]
    texts = [chunk.text for chunk in chunks if isinstance(chunk, Chunk)]
    assert len(texts) == len(chunks) and all(texts)
    assert "".join(texts) == "".join(pieces).strip()
    assert finish == Finish("stop")


def test_label_and_space_never_enter_the_conversation() -> None:
    talk = chat(" Paris.\n\n### Instruction:\nmore", format=get_format("alpaca"))
    assert said(talk, "Capital of France?") == "Paris."
    assert (
        talk.conversation.messages[-1].text
        == "Paris."
        == talk.history.conversation(talk.session or "").messages[-1].text
    )


def test_escapes_of_the_model_are_read_back_and_written_again() -> None:
    """ChatYuan writes a line end as two characters, which only prompts contain."""
    talk = chat(r"one\n\ttwo%20three", "yes", format=get_format("chatyuan"))
    assert said(talk, "a\nb") == "one\n\ttwo  three" == talk.conversation.messages[-1].text
    said(talk, "and?")
    assert (
        talk.engine.prompts[-1].text == r"用户：a\nb\n小元：one\n\ttwo  three\n用户：and?\n小元："
    )  # type: ignore[attr-defined]


@given(
    st.lists(st.sampled_from(["\\", "n", "t", "\\n", "%", "2", "0", "%20", "a", " "]), max_size=12)
)
def test_escapes_are_found_however_the_text_is_cut(pieces: list[str]) -> None:
    marks = get_format("chatyuan").unescapes
    whole, cut = Unescape(marks), Unescape(marks)
    text = "".join(pieces)
    assert whole.feed(text) + whole.flush() == "".join(map(cut.feed, pieces)) + cut.flush()


def test_the_question_is_saved_before_the_answer_begins() -> None:
    talk = chat("an answer of some words")
    events = talk.send("question")
    assert [record.message.text for record in talk.history.messages(talk.session or "")] == [
        "question"
    ]
    events.close()


def test_closing_early_keeps_the_partial_answer_as_cancelled() -> None:
    talk = chat("one two three four")
    events = talk.send("question")
    for event in events:
        if isinstance(event, Chunk) and "two" in event.text:
            break
    events.close()
    assert talk.conversation.messages[-1].text == "one two"
    record = talk.history.messages(talk.session or "")[-1]
    assert (record.message.text, record.state) == (
        "one two",
        "cancelled",
    ) and talk.finish == Finish("cancelled")
    assert said(talk, "go on") == "one two three four"


def test_a_question_that_does_not_fit_is_kept_and_left_out_of_the_next_prompt() -> None:
    talk = chat("fine", context=replace(PRESET.context, tokens=60))
    with pytest.raises(ContextOverflow):
        said(talk, "word " * 100)
    assert said(talk, "short") == "fine"
    assert [record.message.role for record in talk.history.messages(talk.session or "")] == [
        "user",
        "user",
        "assistant",
    ]


def test_regenerate_and_undo_move_the_tip() -> None:
    talk = chat("one", "two", "three")
    said(talk, "a")
    assert [event.text for event in talk.regenerate() if isinstance(event, Chunk)] == ["two"]
    said(talk, "b")
    talk.undo()
    assert (
        talk.conversation
        == Conversation().say("a").answer("two")
        == talk.history.conversation(talk.session or "")
    )
    talk.undo()
    with pytest.raises(UsageError):
        talk.undo()
    with pytest.raises(UsageError):
        next(talk.regenerate())


def test_a_session_can_be_taken_up_again() -> None:
    talk = chat("one", "two")
    talk.instruct("be kind")
    said(talk, "a")
    again = Chat(PRESET, talk.engine, talk.history, session=talk.session)
    assert again.conversation == talk.conversation and again.conversation.system == "be kind"
    said(again, "b")
    assert [message.text for message in talk.history.conversation(talk.session or "").messages] == [
        "be kind",
        "a",
        "one",
        "b",
        "two",
    ]


def test_the_system_text_of_a_preset_is_part_of_the_chat() -> None:
    talk = chat("one", system="You are a pirate.")
    said(talk, "a")
    assert talk.engine.prompts[0].text.startswith("<|im_start|>system\nYou are a pirate.")  # type: ignore[attr-defined]


def test_a_chat_in_which_nothing_was_asked_leaves_no_session() -> None:
    talk = chat("one")
    talk.instruct("be kind")
    assert talk.session is None and talk.history.sessions() == []
