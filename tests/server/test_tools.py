"""Tools: into the prompt by the model's template, and calls out of the model's output."""

from pathlib import Path

from support.serving import HERMES, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine

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
