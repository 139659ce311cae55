"""Tools in Anthropic's API, with its client unchanged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import pytest
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_config
from support.serving import CHATML, model_spec, serving
from support.tool_templates import TEMPLATES

from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine
from llmchat.presets import get_format
from llmchat.server.answer_forms import form_of
from llmchat.server.messages_api.schema import MessagesRequest
from llmchat.server.messages_api.translation import to_chat

HERMES = replace(CHATML, format=get_format("template").with_template(TEMPLATES["hermes"], {}))
ASKED: Any = [{"role": "user", "content": "Weather in Paris and Rome?"}]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip
    return {"name": name, "description": f"The {name}.", "input_schema": schema}


TOOLS: Any = [
    tool("weather", city={"enum": ["Paris", "Rome"]}),
    tool("clock", zone={"type": "string", "pattern": "^[A-Z]{3}$"}),
]
SCHEMAS = {one["name"]: one["input_schema"] for one in TOOLS}


def call(city: str) -> str:
    return f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'


def result(id: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **fields}


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    """A random model, whose calls are bound by their schemas."""
    folder = tmp_path_factory.mktemp("bound")
    base = save_tiny(folder / "base", tiny_config(max_position_embeddings=4096))
    spec = model_spec(lambda: TransformersEngine(base, weights="fp32"), HERMES)
    with serving({"m": spec}, folder) as run:
        yield run.anthropic


def test_a_round_of_parallel_calls(tmp_path: Path) -> None:
    engine = ScriptedEngine([f"I look.\n{call('Paris')}\n{call('Rome')}", "Sunny, and rain."])
    asked: Any = {"model": "m", "max_tokens": 200, "tools": TOOLS}
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        first = run.anthropic.messages.create(messages=ASKED, **asked)
        assert first.stop_reason == "tool_use"
        text, one, two = first.content
        assert (text.text, one.name, one.input, two.input) == (
            "I look.", "weather", {"city": "Paris"}, {"city": "Rome"},
        )  # fmt: skip
        results = [
            result(one.id, "sunny"),
            result(two.id, [{"type": "text", "text": "no data"}], is_error=True),
            {"type": "text", "text": "Be quick."},
        ]
        talk = [
            *ASKED, {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]  # fmt: skip
        second = run.anthropic.messages.create(messages=talk, **asked)
    assert (second.content[0].text, second.stop_reason) == ("Sunny, and rain.", "end_turn")
    assert engine.prompts[1].text.endswith(
        "<|im_start|>tool\nsunny<|im_end|>\n"
        "<|im_start|>tool\nerror: no data\n\nBe quick.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_clients_own_loop_runs_the_tools(tmp_path: Path) -> None:
    """By default the loop asks the server to keep the conversation, and learns that it does not."""

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Of a city."""
        return f"{city}: sunny"

    engine = ScriptedEngine([call("Paris"), "Sunny in Paris."])
    asked: Any = {"model": "m", "max_tokens": 200, "tools": [weather], "messages": ASKED}
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        answers = list(run.anthropic.beta.messages.tool_runner(**asked))
    assert [answer.stop_reason for answer in answers] == ["tool_use", "end_turn"]
    assert "Paris: sunny" in engine.prompts[1].text


def test_a_remark_after_results_loses_no_earlier_turn(tmp_path: Path) -> None:
    engine = ScriptedEngine(["Done."])
    used = {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Rome"}}
    talk: Any = [
        *ASKED, {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result("1", "rain")]},
        {"role": "user", "content": "And Paris?"},
    ]  # fmt: skip
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        run.anthropic.messages.create(model="m", max_tokens=9, messages=talk, tools=TOOLS)
    prompt = engine.prompts[0].text
    assert "Weather in Paris and Rome?" in prompt and '"Rome"' in prompt
    assert "rain\n\nAnd Paris?" in prompt


def test_calls_in_a_stream(tmp_path: Path) -> None:
    reply = f"I look.\n{call('Paris')}\n{call('Rome')}"
    spec = model_spec(lambda: ScriptedEngine([reply]), HERMES)
    asked: Any = {"model": "m", "max_tokens": 200, "tools": TOOLS, "messages": ASKED}
    with serving({"m": spec}, tmp_path) as run, run.anthropic.messages.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert [(block.type, getattr(block, "input", None)) for block in final.content] == [
        ("text", None), ("tool_use", {"city": "Paris"}), ("tool_use", {"city": "Rome"}),
    ]  # fmt: skip
    assert final.stop_reason == "tool_use"
    starts = [event.index for event in events if event.type == "content_block_start"]
    assert starts == [0, 1, 2]
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    assert [json.loads(piece) for piece in pieces] == [{"city": "Paris"}, {"city": "Rome"}]


@pytest.mark.parametrize(
    ("choice", "names"),
    [({"type": "any"}, {"weather", "clock"}), ({"type": "tool", "name": "clock"}, {"clock"})],
    ids=["any", "tool"],
)
def test_a_required_call_fits_its_schema(
    bound: anthropic.Anthropic, choice: Any, names: set[str]
) -> None:
    asked: Any = {"model": "m", "max_tokens": 1500, "messages": ASKED, "tools": TOOLS}
    answer = bound.messages.create(**asked, tool_choice=choice, extra_body={"seed": 1})
    assert answer.stop_reason == "tool_use"
    for block in answer.content:
        assert block.type == "tool_use" and block.name in names
        jsonschema.validate(block.input, SCHEMAS[block.name])


def test_parallel_calls_can_be_forbidden(bound: anthropic.Anthropic) -> None:
    asked: Any = {"model": "m", "max_tokens": 1500, "messages": ASKED, "tools": TOOLS}
    single = {"type": "any", "disable_parallel_tool_use": True}
    for seed in range(4):
        answer = bound.messages.create(**asked, tool_choice=single, extra_body={"seed": seed})
        assert len(answer.content) == 1


@pytest.mark.parametrize(
    ("choice", "parallel"),
    [
        ({"type": "any"}, True),
        ({"type": "any", "disable_parallel_tool_use": True}, False),
        ({"type": "tool", "name": "clock"}, False),
        ({"type": "tool", "name": "clock", "disable_parallel_tool_use": False}, True),
    ],
)
def test_a_named_tool_is_called_once_unless_parallel_calls_are_asked_for(
    choice: dict[str, Any], parallel: bool
) -> None:
    fields = {"model": "m", "max_tokens": 9, "messages": ASKED, "tools": TOOLS}
    asked = MessagesRequest.model_validate({**fields, "tool_choice": choice})
    offered = form_of(to_chat(asked)).tools
    assert offered and offered.parallel == parallel


def test_disabled_tools_are_not_in_the_prompt(tmp_path: Path) -> None:
    engine = ScriptedEngine(["No."])
    asked: Any = {"model": "m", "max_tokens": 9, "messages": ASKED, "tools": TOOLS}
    with serving({"m": model_spec(lambda: engine, HERMES)}, tmp_path) as run:
        run.anthropic.messages.create(**asked, tool_choice={"type": "none"})
    assert "The clock." not in engine.prompts[0].text
