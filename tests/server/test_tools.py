"""Tools: into the prompt by the model's template, and calls out of the model's output."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.serving import CHATML, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.presets import get_format
from llmchat.server.tool_calls import ToolCallParser

# The way Qwen 2.5 and Hermes write it, shortened.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n<tools>"
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools><|im_end|>\n{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = replace(CHATML, format=get_format("template").with_template(TEMPLATE, {}))
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
ASKED = [{"role": "user", "content": "Weather in Paris?"}]


def read(template: str, *pieces: str) -> tuple[str, list[dict[str, Any]]]:
    reader = ToolCallParser(template, {"weather", "time"})
    parts = [*(reader.feed(piece) for piece in pieces), reader.flush()]
    return "".join(text for text, _ in parts), [call for _, calls in parts for call in calls]


@given(st.lists(st.integers(0, 200), max_size=6))
def test_calls_are_found_wherever_the_text_is_split(cuts: list[int]) -> None:
    text = f"Let me look.\n{CALL}\n{CALL.replace('Paris', 'Rome')} Done."
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    shown, calls = read(TEMPLATE, *(text[start:end] for start, end in itertools.pairwise(edges)))
    assert shown == "Let me look.\n\n Done."
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [
        {"city": "Paris"},
        {"city": "Rome"},
    ]
    assert [call["index"] for call in calls] == [0, 1] and len({call["id"] for call in calls}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>no json</tool_call>",
        '<tool_call>{"name": "unknown"}</tool_call>',
        "no call at all",
        "<tool_call>[1]</tool_call>",
        "",
    ],
)
def test_json_without_a_call_is_text(text: str) -> None:
    assert read(TEMPLATE, text) == (text, [])


def test_an_incomplete_call_is_text() -> None:
    assert read(TEMPLATE, '<tool_call>{"name": "weather", "argu')[1] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        '[{"name": "weather", "arguments": {"city": "Paris"}}]',
        '\n {"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
    ],
    ids=["llama", "mistral", "arguments as text"],
)
def test_models_that_write_bare_json(text: str) -> None:
    shown, (call,) = read("{{ tools }}", *text)
    assert (
        shown == ""
        and call["function"]["name"] == "weather"
        and json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    )
    assert read("{{ tools }}", "{not", " json}") == ("{not json}", []) and read(
        "{{ tools }}", "Hi ", "{}"
    ) == ("Hi {}", [])


@pytest.mark.parametrize("template", [TEMPLATE, "{{ tools }}"], ids=["marks", "bare"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "arguments": {"city": "Paris"}}',
        '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```',
        '\n```\n[{"name": "weather", "parameters": {"city": "Paris"}}]\n```\n',
        '```tool_call\n{"name": "weather", "arguments": {"city": "Paris"}}```',
    ],
)
def test_bare_and_fenced_json_calls_whatever_the_template_teaches(template: str, text: str) -> None:
    for pieces in ([text], list(text)):
        shown, (call,) = read(template, *pieces)
        assert shown == "" and json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_several_calls_in_a_row_without_a_list() -> None:
    text = '{"name": "weather", "arguments": {}}\n{"name": "time", "arguments": {}}'
    shown, calls = read(TEMPLATE, *text)
    assert shown == "" and [call["function"]["name"] for call in calls] == ["weather", "time"]


@pytest.mark.parametrize("template", [TEMPLATE, "{{ tools }}"], ids=["marks", "bare"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": ["weather"]}',
        '{"name": {"a": 1}}',
        '{"name": "other", "arguments": {}}',
        "[" * 20_000,
        '{"a":' * 20_000,
        '```python\nprint("weather")\n```',
        '```json\n{"city": "Paris"}\n```',
        '{"name": "weather", "arguments": NaN}',
        "``",
        "[1, 2] and more",
        "9" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_json_that_calls_no_offered_function_is_text(template: str, text: str) -> None:
    assert read(template, text) == (text, []) and read(template, *text[:3000]) == (text[:3000], [])
    inside = f"<tool_call>{text}</tool_call>"
    assert read(TEMPLATE, inside) == (inside, [])


def test_a_lone_surrogate_in_an_argument_stays_escaped() -> None:
    _, (call,) = read(TEMPLATE, '{"name": "weather", "arguments": {"city": "\\ud83d"}}')
    assert call["function"]["arguments"].encode() == b'{"city": "\\ud83d"}'


@given(st.text(alphabet='{}[]"`:, \\nametool_<>/1', max_size=60), st.integers(1, 7))
def test_no_answer_breaks_the_reader(text: str, step: int) -> None:
    for template in (TEMPLATE, "{{ tools }}"):
        shown, calls = read(
            template, *(text[start : start + step] for start in range(0, len(text), step))
        )
        assert (
            calls
            or shown.replace(" ", "") == text.rstrip().replace(" ", "")
            or "<tool_call>" in text
        )


def test_a_round_of_tool_calls_with_the_official_client(tmp_path: Path) -> None:
    engine = ScriptedEngine([f"I look.\n{CALL}", "It is sunny."])
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        client = run.openai
        first = client.chat.completions.create(model="m", messages=ASKED, tools=[WEATHER]).choices[
            0
        ]  # type: ignore[call-overload]
        (call,) = first.message.tool_calls
        assert first.finish_reason == "tool_calls" and first.message.content == "I look."
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
        answered = [
            *ASKED,
            first.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        second = client.chat.completions.create(
            model="m", messages=answered, tools=[WEATHER]
        ).choices[0]
        assert (second.message.content, second.finish_reason) == ("It is sunny.", "stop")
    assert engine.prompts[0].text.startswith(
        '<|im_start|>system\n<tools>{"type": "function", "function": {"name": "weather"'
    )
    assert engine.prompts[1].text.endswith(
        "<|im_start|>assistant\nI look.<tool_call>"
        '{"name": "weather", "arguments": {"city": "Paris"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nsunny<|im_end|>\n<|im_start|>assistant\n"
    )


def test_calls_in_a_stream(tmp_path: Path) -> None:
    with serving(
        {"m": model_spec(lambda: ScriptedEngine([f"I look.\n{CALL}"]), HERMES)}, tmp_path
    ) as run:
        pieces = list(
            run.openai.chat.completions.create(
                model="m", messages=ASKED, tools=[WEATHER], stream=True
            )
        )  # type: ignore[call-overload]
    calls = [call for piece in pieces for call in piece.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.function.name, call.function.arguments) for call in calls] == [
        (0, "weather", '{"city": "Paris"}')
    ]
    assert (
        "".join(piece.choices[0].delta.content or "" for piece in pieces) == "I look."
        and pieces[-1].choices[0].finish_reason == "tool_calls"
    )


def test_disabled_tools_are_not_in_the_prompt(tmp_path: Path) -> None:
    engine = ScriptedEngine([CALL])
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        answer = run.openai.chat.completions.create(
            model="m", messages=ASKED, tools=[WEATHER], tool_choice="none"
        ).choices[0]  # type: ignore[call-overload]
        refused = run.http.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": ASKED, "tools": [WEATHER], "tool_choice": "required"},
        )
    assert (
        answer.message.content == CALL
        and not answer.message.tool_calls
        and "<tools>" not in engine.prompts[0].text
    )
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tool_choice"


def test_tool_results_without_a_call_are_refused(tmp_path: Path) -> None:
    with serving({"m": model_spec(ScriptedEngine, HERMES)}, tmp_path) as run:
        for messages in (
            [{"role": "tool", "content": "x", "tool_call_id": "1"}],
            [*ASKED, {"role": "tool", "content": "x", "tool_call_id": "1"}],
            [
                *ASKED,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}
                    ],
                },
            ],
            [
                *ASKED,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
                },
            ],
        ):
            assert (
                run.http.post(
                    "/v1/chat/completions", json={"model": "m", "messages": messages}
                ).status_code
                == 400
            ), messages
