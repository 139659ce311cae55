"""OpenAI's client against /v1/responses: answers, tools, structure, and the order of events."""

import json
from typing import Any, Literal

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel
from support.responses import sent
from support.serving import Running

TEXT = "Well, **yes**.\n\nAnd no."
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASKED = [{"role": "user", "content": "Weather in Paris?"}]


def events_of(run: Running, **asked: Any) -> list[Any]:
    return list(run.openai.responses.create(stream=True, **asked))


def kinds(events: list[Any]) -> list[str]:
    """The types of events, each run of deltas as one."""
    types = [event.type.removeprefix("response.") for event in events]
    return [
        one
        for index, one in enumerate(types)
        if not (one.endswith("delta") and index and types[index - 1] == one)
    ]


def test_an_answer_has_its_text_its_settings_and_its_usage(run: Running) -> None:
    made = run.openai.responses.create(
        model="plain",
        input="Hello?",
        instructions="Be short.",
        temperature=0.5,
        metadata={"a": "b"},
    )
    assert (made.output_text, made.status, made.model) == (TEXT, "completed", "plain")
    assert made.id.startswith("resp_") and made.object == "response" and made.completed_at
    (message,) = made.output
    assert message.type == "message" and message.role == "assistant"
    assert (made.temperature, made.metadata, made.instructions) == (0.5, {"a": "b"}, "Be short.")
    assert made.usage and made.usage.total_tokens == made.usage.input_tokens + 15
    assert made.usage.output_tokens_details.reasoning_tokens == 0
    assert sent(run, "plain") == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_events_of_a_text_come_in_openais_order(run: Running) -> None:
    events = events_of(run, model="plain", input="Hello?")
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3 and "".join(deltas) == TEXT
    ids = {event.response.id for event in events if hasattr(event, "response")}
    assert len(ids) == 1 and events[0].response.status == "in_progress"
    assert events[-1].response.output_text == TEXT
    added, done = (e for e in events if e.type.startswith("response.output_item."))
    assert (added.item.content, added.item.status) == ([], "in_progress")
    assert (done.item, done.item.status) == (events[-1].response.output[0], "completed")


def test_the_clients_own_accumulation_of_events_is_the_whole_answer(run: Running) -> None:
    with run.openai.responses.stream(model="plain", input="Hello?") as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == TEXT and final.status == "completed"


def test_thoughts_are_an_item_before_the_message(run: Running) -> None:
    made = run.openai.responses.create(model="thinker", input="2 + 2?")
    thought, message = made.output
    assert thought.type == "reasoning" and thought.content is not None
    assert [part.text.strip() for part in thought.content] == ["Hm, so."] and thought.summary == []
    assert message.type == "message" and made.output_text == "It is 4."
    assert made.usage and 0 < made.usage.output_tokens_details.reasoning_tokens < 13
    events = events_of(run, model="thinker", input="2 + 2?", reasoning={"summary": "auto"})
    assert kinds(events) == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [e.output_index for e in events if e.type == "response.output_item.done"] == [0, 1]


def test_thoughts_that_come_back_are_not_sent_again(run: Running) -> None:
    first = run.openai.responses.create(model="thinker", input="2 + 2?", store=False)
    history = [*ASKED, *(item.model_dump() for item in first.output), *ASKED]
    run.openai.responses.create(model="thinker", input=history, store=False)
    assert "It is 4." in sent(run, "thinker") and "Hm" not in sent(run, "thinker")


def test_a_round_of_a_tool_with_its_output(run: Running) -> None:
    client = run.openai
    first = client.responses.create(model="caller", input=ASKED, tools=[WEATHER])
    text, call = first.output
    assert text.type == "message" and text.content[0].text == "I look."
    assert call.type == "function_call" and call.name == "weather"
    assert json.loads(call.arguments) == {"city": "Paris"}
    history = [*ASKED, *(item.model_dump(exclude_none=True) for item in first.output)]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = client.responses.create(model="caller", input=[*history, output], tools=[WEATHER])
    assert second.output_text == "It is sunny."
    assert sent(run, "caller").endswith(
        "<|im_start|>assistant\nI look.<tool_call>"
        '{"name": "weather", "arguments": {"city": "Paris"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nsunny<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_events_of_a_call(run: Running) -> None:
    events = events_of(run, model="caller", input=ASKED, tools=[WEATHER])
    assert kinds(events)[-6:] == [
        "output_item.done", "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    events_of(run, model="caller", input=ASKED)  # The script's other answer.
    with run.openai.responses.stream(model="caller", input=ASKED, tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    assert json.loads(final.output[-1].arguments) == {"city": "Paris"}
    run.openai.responses.create(model="caller", input=ASKED)


def test_a_custom_tool_gets_a_text(run: Running) -> None:
    tool: Any = {"type": "custom", "name": "patch", "format": {"type": "text"}}
    first = run.openai.responses.create(model="patcher", input=ASKED, tools=[tool])
    (call,) = first.output
    assert call.type == "custom_tool_call" and call.input == "+ a\n- b"
    output: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "ok"}
    second = run.openai.responses.create(
        model="patcher", previous_response_id=first.id, input=[output], tools=[tool]
    )
    assert second.output_text == "Done." and "<|im_start|>tool\nok" in sent(run, "patcher")


def test_tools_of_a_namespace_are_called_with_it(run: Running) -> None:
    tools: Any = [{"type": "namespace", "name": "maps", "description": "", "tools": [WEATHER]}]
    first = run.openai.responses.create(model="spaced", input=ASKED, tools=tools)
    (call,) = first.output
    assert call.type == "function_call" and (call.namespace, call.name) == ("maps", "weather")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "ok"}
    run.openai.responses.create(
        model="spaced", previous_response_id=first.id, input=[output], tools=tools
    )
    assert '"name": "maps.weather", "arguments": {}' in sent(run, "spaced")


def test_only_allowed_tools_are_offered(run: Running) -> None:
    other: Any = {**WEATHER, "name": "other"}
    choice: Any = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "other"}],
    }
    made = run.openai.responses.create(
        model="echo", input=ASKED, tools=[WEATHER, other], tool_choice=choice
    )
    assert '"name": "other"' in sent(run, "echo") and '"weather"' not in sent(run, "echo")
    assert made.tool_choice.type == "allowed_tools" and len(made.tools) == 2


def test_the_limit_of_tokens_makes_an_answer_incomplete(run: Running) -> None:
    made = run.openai.responses.create(model="plain", input="Hello?", max_output_tokens=2)
    assert (made.output_text, made.status) == ("Well,", "incomplete")
    assert made.incomplete_details and made.incomplete_details.reason == "max_output_tokens"
    assert made.output[0].status == "incomplete"
    events = events_of(run, model="plain", input="Hello?", max_output_tokens=2)
    assert events[-1].type == "response.incomplete"


def test_log_probabilities_are_included_on_request(tiny_run: Running) -> None:
    made = tiny_run.openai.responses.create(
        model="tiny",
        input="the quick brown fox",
        temperature=0,
        max_output_tokens=5,
        top_logprobs=3,
        include=["message.output_text.logprobs"],
    )
    (part,) = made.output[0].content
    spelled = b"".join(bytes(one.bytes) for one in part.logprobs).decode("utf-8", "replace")
    assert part.logprobs and spelled.strip() == part.text
    assert all(len(one.top_logprobs) == 3 for one in part.logprobs)


class Answer(BaseModel):
    colour: Literal["red", "green"]
    sure: bool


def test_a_parsed_answer_has_the_form_of_a_type(tiny_run: Running) -> None:
    made = tiny_run.openai.responses.parse(
        model="tiny", input="Who?", text_format=Answer, temperature=0, max_output_tokens=100
    )
    assert made.status == "completed" and isinstance(made.output_parsed, Answer)
    assert made.text and made.text.format and made.text.format.type == "json_schema"


def test_an_answer_of_an_adapter_is_that_of_chat_completions(tiny_run: Running) -> None:
    client, asked = tiny_run.openai, "the quick brown fox"
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": asked}],
        temperature=0,
        max_completion_tokens=12,
    )
    made = client.responses.create(model="tiny", input=asked, temperature=0, max_output_tokens=12)
    assert made.output_text == chat.choices[0].message.content
    assert made.usage and chat.usage
    assert made.usage.output_tokens == chat.usage.completion_tokens


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0", None),
        ({"temprature": 1}, "temprature", "unsupported_parameter"),
        ({"conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", None),
        ({"text": {"verbosity": "low"}}, "text.verbosity", None),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "unsupported_parameter"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", None),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", None),
        ({"text": {"format": {"type": "json_schema", "schema": {"format": "x", "not": {}}}}},
         "text.format", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [WEATHER]}, "tool_choice",
         None),
        ({"tools": [WEATHER, WEATHER]}, "tools", None),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools.0.defer_loading",
         "unsupported_parameter"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input.0", None),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}, "input",
         None),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}]},
         "input", None),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input", None),
        ({"input": [{"role": "user", "content": "x", "mood": 1}]}, "input.0.mood",
         "unsupported_parameter"),
        ({"input": []}, "input", None),
        ({"input": [{"type": "reasoning", "id": "x", "summary": []}]}, "input", None),
        ({"tools": [{"type": "namespace", "name": "n" * 70, "tools": [
            {**WEATHER, "name": "f" * 70}]}]}, "tools", None),
        ({"input": "word " * 3000}, "input", "context_length_exceeded"),
        ({"previous_response_id": "resp_x"}, "previous_response_id",
         "previous_response_not_found"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input", "item_not_found"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_refused_by_its_name(
    run: Running, fields: dict[str, Any], param: str, code: str | None
) -> None:
    refused = run.http.post("/v1/responses", json={"model": "plain", "input": "hi", **fields})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        {"prompt_cache_key": "x", "client_metadata": {"a": "b"}, "service_tier": "auto"},
        {"text": {"verbosity": "medium", "format": {"type": "text"}}, "max_tool_calls": 3},
        {"stream_options": {"include_obfuscation": False}, "truncation": "disabled"},
        {"top_k": 3, "seed": 7, "stop": "x", "keep_alive": "5m", "max_output_tokens": -1},
        {"max_output_tokens": 1_000_000},
    ],
    ids=str,
)
def test_what_clients_send_is_accepted(run: Running, fields: dict[str, Any]) -> None:
    made = run.http.post("/v1/responses", json={"model": "plain", "input": "hi", **fields})
    assert made.status_code == 200, made.text


def test_errors_have_the_types_of_the_client(run: Running) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        run.openai.responses.create(model="none", input="hi")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        run.openai.responses.create(model="plain", input="word " * 3000, stream=True)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")


def test_messages_are_dropped_only_if_requested(run: Running) -> None:
    turns: Any = [
        {"role": role, "content": f"{role} says {'some words ' * 20}"}
        for _ in range(40)
        for role in ("user", "assistant")
    ]
    asked: Any = [*turns, {"role": "user", "content": "And now?"}]
    made = run.openai.responses.create(model="plain", input=asked, truncation="auto")
    window = made.model_dump()["llmchat"]["window"]
    assert made.truncation == "auto" and window["dropped"] > 0
    assert "And now?" in sent(run, "plain")


def test_a_failure_within_a_stream_is_an_event(failing_run: Running) -> None:
    events = events_of(failing_run, model="m", input="hi")
    last: Response = events[-1].response
    assert events[-1].type == "response.failed" and last.status == "failed"
    assert last.error and last.error.code == "internal_error" and "secret" not in str(last.error)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with pytest.raises(openai.InternalServerError):
        failing_run.openai.responses.create(model="m", input="hi")
