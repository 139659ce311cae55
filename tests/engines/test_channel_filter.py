"""Harmony's channels, streamed: thoughts, remarks, calls and answers, at every cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.tool_templates import TEMPLATES

from llmchat import chat_template
from llmchat.calls import ToolRequest
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Sampling
from llmchat.engines.channel_filter import ChannelFilter
from llmchat.engines.scripted import ScriptedEngine
from llmchat.presets import find, get_format
from llmchat.reply import reply
from llmchat.reply_parser import Thinking, ToolCalls

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
NEXT = "<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>Is a < b? <|en"
CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}'


def parted(*pieces: str, inside: bool = False, tools: bool = False) -> tuple[str, str]:
    """What was thought and what was said."""
    room = ChannelFilter(inside=inside, tools=tools)
    parts = [part for piece in pieces for part in room.feed(piece)] + room.flush()
    assert all(text for _, text in parts)
    return "".join(text for thought, text in parts if thought), "".join(
        text for thought, text in parts if not thought
    )


@given(st.data())
def test_every_cut_gives_the_same(data: st.DataObject) -> None:
    text = f"{THOUGHT}{NEXT}<|channel|>final<|message|>Yes, <|end it is.<|return|>"
    pieces = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        pieces.append(text[:size])
        text = text[size:]
    assert parted(*pieces) == ("Is a < b? <|en", "Yes, <|end it is.")


FINAL = f"{NEXT}<|channel|>final<|message|>Yes"


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        (f"<|channel|>final<|message|>Yes{NEXT}", "", "Yes"),
        ("Yes", "", "Yes"),
        ("to", "", "to"),
        ("  <b>Yes</b>", "", "  <b>Yes</b>"),
        (f"{THOUGHT}", "Is a < b? <|en", ""),
        (f"<|channel|>analysis<|message|>A{NEXT}<|channel|>fin", "A", ""),
        # Consecutive thoughts, and a remark before the answer, are paragraphs.
        (f"<|channel|>analysis<|message|>A{NEXT}<|channel|>analysis<|message|>B{FINAL}",
         "A\n\nB", "Yes"),
        (f"<|channel|>commentary<|message|>I look.{FINAL}", "", "I look.\n\nYes"),
        # A model that forgets to end its thought.
        ("<|channel|>analysis<|message|>A<|channel|>final<|message|>Yes", "A", "Yes"),
        ("<|channel|>analysis<|message|>A<|start|>assistant<|channel|>final<|message|>Yes",
         "A", "Yes"),
        # A tool of its own, within its thoughts.
        (f"<|channel|>analysis to=python code<|message|>1+1{FINAL}", "1+1", "Yes"),
        # A call where no tools are offered is not lost.
        (CALL, "", '{"city": "Paris"}'),
    ],
)  # fmt: skip
def test_channels_become_thoughts_and_text(text: str, thought: str, said: str) -> None:
    assert parted(text) == parted(*text) == (thought, said)


def test_a_prompt_may_end_within_a_thought() -> None:
    assert parted("so it is<|e", f"nd|>{FINAL}", inside=True) == ("so it is", "Yes")


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.weather json<|message|>",
        " to=functions.weather<|channel|>commentary json<|message|>",
        " to=functions.weather<|channel|>analysis<|message|>",
    ],
)
def test_a_call_has_one_header_however_the_model_writes_it(header: str) -> None:
    text = f'{header}{{"city": "Paris"}}<|call|>'
    assert parted(text, tools=True) == parted(*text, tools=True) == ("", CALL)


def answered(text: str, tools: ToolRequest | None) -> tuple[str, str, list[dict[str, object]]]:
    """Thoughts, text and arguments of calls of a reply of gpt-oss."""
    template = TEMPLATES["harmony"]
    labels = chat_template.labels(template)
    form = get_format("template").with_template(template, {}, labels)
    preset = replace(find("smollm2"), format=form)
    events = list(
        reply(Conversation().say("Hi"), preset, ScriptedEngine([text]), Sampling(), tools)
    )
    calls = [call for event in events if isinstance(event, ToolCalls) for call in event.calls]
    return (
        "".join(event.text for event in events if isinstance(event, Thinking)),
        "".join(event.text for event in events if isinstance(event, Chunk)),
        [call.arguments for call in calls],
    )


TOOLS = ToolRequest((WEATHER,))


@pytest.mark.parametrize("tools", [None, TOOLS, replace(TOOLS, choice="none")])
def test_analysis_is_thinking_and_final_is_the_answer(tools: ToolRequest | None) -> None:
    text = f"<|channel|>analysis<|message|>Hm.{NEXT}<|channel|>analysis<|message|>Ah.{FINAL}"
    assert answered(text, tools) == ("Hm.\n\nAh.", "Yes", [])


def test_commentary_is_calls_and_remarks() -> None:
    text = (
        f"<|channel|>analysis<|message|>Hm.{NEXT}<|channel|>commentary<|message|>I look.{NEXT}"
        f"{CALL}<|call|>"
    )
    assert answered(text, TOOLS) == ("Hm.", "I look.", [{"city": "Paris"}])


def test_answer_that_is_continued_is_in_the_final_channel() -> None:
    template = TEMPLATES["harmony"]
    form = get_format("template").with_template(template, {}, chat_template.labels(template))
    conversation = Conversation().say("Hi").answer("Once")
    assert form.extend(conversation.messages).text.endswith(
        "<|start|>assistant<|channel|>final<|message|>Once"
    )
