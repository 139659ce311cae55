"""Anthropic's client, unchanged, against a real server."""

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from msgspec.structs import replace
from pydantic import BaseModel
from support.checkpoints import save_tiny, tiny_config
from support.serving import CHATML, Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine
from llmchat.presets import get_format

HELLO: Any = [{"role": "user", "content": "the quick brown fox"}]
REPLY = "Well, **yes**.\n\nAnd no."
_SWITCHES = (
    "{% if enable_thinking is defined %}[thinks: {{ enable_thinking }}]{% endif %}"
    "{% if thinking_budget is defined %}[budget: {{ thinking_budget }}]{% endif %}"
)
_TURNS = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
_THINKS = "<assistant>{% if false %}<think></think>{% endif %}"
THINKER = replace(
    CHATML, format=get_format("template").with_template(_SWITCHES + _TURNS + _THINKS, {})
)


class Inventor(BaseModel):
    name: Literal["Bell", "Meucci"]
    year: Literal[1854, 1876]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("messages")
    base = save_tiny(folder / "base", tiny_config(max_position_embeddings=2048))
    thoughts = ["<think>Paris, I think.</think>It is Paris."]
    specs = {
        "tiny": model_spec(lambda: TransformersEngine(base, weights="fp32"), key="tiny"),
        "scripted": model_spec(lambda: ScriptedEngine([REPLY]), key="scripted"),
        "thinker": model_spec(lambda: ScriptedEngine(thoughts), THINKER, key="thinker"),
    }
    with serving(specs, folder, slots=4) as running:
        yield running


@pytest.fixture(scope="module")
def client(run: Running) -> anthropic.Anthropic:
    return run.anthropic


def sent(run: Running, key: str = "scripted") -> str:
    """The last prompt of a scripted engine."""
    loaded: Any = run.state.pool.loaded_models()
    engine = next(one.engine for one in loaded if one.key == key)
    return str(engine.prompts[-1].text)


def test_a_complete_and_a_streamed_message_are_equal(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model="scripted", max_tokens=100, messages=HELLO)
    assert [(block.type, block.text) for block in whole.content] == [("text", REPLY)]
    assert (whole.role, whole.model, whole.stop_reason, whole.stop_sequence) == (
        "assistant", "scripted", "end_turn", None,
    )  # fmt: skip
    assert whole.id.startswith("msg_") and (whole._request_id or "").startswith("req_")
    with client.messages.stream(model="scripted", max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == REPLY and final.content[0].text == REPLY
    assert (final.stop_reason, final.usage.output_tokens) == (
        "end_turn", whole.usage.output_tokens,
    )  # fmt: skip


def test_events_come_in_anthropics_order(client: anthropic.Anthropic) -> None:
    events = list(
        client.messages.create(model="scripted", max_tokens=100, messages=HELLO, stream=True)
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"} and len(kinds[2:-3]) > 1
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0].message.usage.input_tokens > 0 and events[0].message.content == []


def test_an_answer_equals_that_of_chat_completions(run: Running) -> None:
    theirs = run.openai.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_tokens=12
    )
    ours = run.anthropic.messages.create(
        model="tiny", messages=HELLO, max_tokens=12, extra_body={"temperature": 0}
    )
    assert ours.content[0].text == theirs.choices[0].message.content
    counts = theirs.usage.prompt_tokens, theirs.usage.completion_tokens
    usage = ours.usage
    assert (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens) == counts


def test_the_conversation_is_what_the_terminal_would_send(
    run: Running, client: anthropic.Anthropic
) -> None:
    client.messages.create(
        model="scripted",
        max_tokens=9,
        system=[{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "And kind."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello"},
                                         {"type": "text", "text": "there"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "A greeting.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}, "trigger": {}},
                {"type": "text", "text": "Hi"}, {"type": "text", "text": "."},
            ]},
            {"role": "user", "content": "One."},
            {"role": "user", "content": "Two."},
        ],
    )  # fmt: skip
    assert sent(run) == (
        "<|im_start|>system\nBe short.\n\nAnd kind.<|im_end|>\n"
        "<|im_start|>user\nHello\n\nthere<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
        "<|im_start|>user\nOne.\n\nTwo.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_started_answer_is_continued(run: Running, client: anthropic.Anthropic) -> None:
    started = [*HELLO, {"role": "assistant", "content": "It is"}]
    client.messages.create(model="scripted", max_tokens=9, messages=started)
    assert sent(run).endswith("<|im_start|>assistant\nIt is")


def test_the_stop_reason_is_reported(client: anthropic.Anthropic) -> None:
    def ended(**fields: Any) -> tuple[str | None, str | None, str]:
        asked = {"model": "scripted", "max_tokens": 100, "messages": HELLO} | fields
        answer = client.messages.create(**asked)
        return answer.stop_reason, answer.stop_sequence, answer.content[0].text

    assert ended(stop_sequences=["nowhere", "And"]) == ("stop_sequence", "And", "Well, **yes**.")
    assert ended(stop_sequences=["nowhere"]) == ("end_turn", None, REPLY)
    assert ended(max_tokens=2) == ("max_tokens", None, "Well,")


def test_a_stop_sequence_of_a_real_engine_is_named(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 20, "messages": HELLO}
    asked["extra_body"] = {"temperature": 0}
    text = client.messages.create(**asked).content[0].text
    stopped = client.messages.create(**asked, stop_sequences=[text[5:8]])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", text[5:8])
    with client.messages.stream(**asked, stop_sequences=[text[5:8]]) as stream:
        assert stream.get_final_message().stop_sequence == text[5:8]


def test_max_tokens_is_a_limit_and_not_a_demand(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "tiny", "messages": HELLO, "extra_body": {"ignore_eos": None}}
    answer = client.messages.create(
        max_tokens=1_000_000, timeout=60, stop_sequences=["never to be found"], **asked
    )
    assert answer.stop_reason in ("model_context_window_exceeded", "end_turn")


def test_stream_counts_what_was_cached_from_its_first_event(client: anthropic.Anthropic) -> None:
    messages = [{"role": "user", "content": "jump over the lazy fox of the quick dog"}]
    asked: Any = {"model": "tiny", "max_tokens": 4, "messages": messages}
    whole = client.messages.create(**asked).usage
    events = list(client.messages.create(**asked, stream=True))
    started, ended = events[0].message.usage, events[-2].usage
    assert started.cache_read_input_tokens > 0 and started.cache_creation_input_tokens == 0
    assert started.input_tokens == ended.input_tokens
    assert started.cache_read_input_tokens == ended.cache_read_input_tokens
    total = whole.input_tokens + whole.cache_read_input_tokens
    assert started.input_tokens + started.cache_read_input_tokens == total


def test_fields_that_clients_copy_from_answers_are_accepted(client: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}, "caller": {"type": "direct"}}
    messages: Any = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Yes.", "citations": None, "cache_control": None},
                call,
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result", "tool_use_id": "a", "content": "1", "is_error": False,
                    "cache_control": {"type": "ephemeral"},
                }
            ],
        },
    ]  # fmt: skip
    assert client.messages.create(model="scripted", max_tokens=9, messages=messages).content


def test_what_was_cached_is_counted_by_itself(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 2}
    messages = [{"role": "user", "content": "count the foxes of the lazy dog"}]
    first = client.messages.create(messages=messages, **asked).usage
    second = client.messages.create(messages=messages, **asked).usage
    assert second.cache_read_input_tokens > 0 and second.input_tokens >= 1
    assert (
        second.input_tokens + second.cache_read_input_tokens
        == first.input_tokens + first.cache_read_input_tokens
    )


def test_thoughts_are_blocks_of_their_own(run: Running, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "thinker", "max_tokens": 100, "messages": HELLO}
    enabled: Any = {"type": "enabled", "budget_tokens": 1024}
    whole = client.messages.create(**asked, thinking=enabled)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.content[0].thinking == "Paris, I think."
    assert whole.content[1].text == "It is Paris."
    assert "[thinks: True][budget: 1024]" in sent(run, "thinker")
    with client.messages.stream(**asked, thinking=enabled) as stream:
        thoughts = [event.thinking for event in stream if event.type == "thinking"]
        final = stream.get_final_message()
    assert "".join(thoughts) == "Paris, I think." and len(thoughts) > 1
    assert [block.model_dump() for block in final.content] == [
        block.model_dump() for block in whole.content
    ]


def test_thinking_is_off_or_adaptive(run: Running, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "thinker", "max_tokens": 100, "messages": HELLO}
    client.messages.create(**asked, thinking={"type": "disabled"})
    assert "[thinks: False]" in sent(run, "thinker")
    for fields in ({}, {"thinking": {"type": "adaptive"}}):
        client.messages.create(**asked, **fields)
        assert "[" not in sent(run, "thinker"), "as the template does by itself"
    hidden = client.messages.create(**asked, thinking={"type": "adaptive", "display": "omitted"})
    assert [block.type for block in hidden.content] == ["thinking", "text"]
    assert hidden.content[0].thinking == ""


def test_what_claude_code_sends_is_understood(run: Running, client: anthropic.Anthropic) -> None:
    """The fields of its version 2.1.197, with a system message after the question."""
    system: Any = {"role": "system", "content": "Agents: none."}
    fields = {
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
    }
    client.messages.create(
        model="scripted",
        max_tokens=32000,
        system=[{"type": "text", "text": "You help."}],
        messages=[*HELLO, system],
        metadata={"user_id": "{}"},
        thinking={"type": "adaptive"},
        extra_body=fields,
    )
    assert sent(run).startswith("<|im_start|>system\nYou help.\n\nAgents: none.<|im_end|>\n")


def test_a_model_that_cannot_think_says_so(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "scripted", "max_tokens": 2000, "messages": HELLO}
    with pytest.raises(anthropic.BadRequestError, match="does not think"):
        client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})
    assert client.messages.create(**asked, thinking={"type": "disabled"}).content


def test_an_answer_has_the_structure_of_a_class(client: anthropic.Anthropic) -> None:
    parsed = client.messages.parse(
        model="tiny", max_tokens=1000, messages=HELLO, output_format=Inventor,
        extra_body={"seed": 3},
    ).parsed_output  # fmt: skip
    assert isinstance(parsed, Inventor)


def test_counted_tokens_are_those_of_the_usage(client: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    asked: Any = {"model": "tiny", "messages": HELLO, "system": "Be kind.", "tools": tools}
    counted = client.messages.count_tokens(**asked).input_tokens
    usage = client.messages.create(max_tokens=1, **asked).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    asked.pop("tools")
    assert client.messages.count_tokens(**asked).input_tokens < counted


def test_tokens_beyond_the_window_are_counted(client: anthropic.Anthropic) -> None:
    long: Any = [{"role": "user", "content": "fox " * 5000}]
    assert client.messages.count_tokens(model="tiny", messages=long).input_tokens > 5000
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(model="tiny", max_tokens=1, messages=long)


def test_the_async_client_streams(run: Running) -> None:
    async def answer() -> str:
        async with anthropic.AsyncAnthropic(base_url=run.url, api_key="none") as client:
            asked: Any = {"model": "scripted", "max_tokens": 99, "messages": HELLO}
            async with client.messages.stream(**asked) as stream:
                return "".join([text async for text in stream.text_stream])

    assert asyncio.run(answer()) == REPLY
