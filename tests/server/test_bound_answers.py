"""Tools and structures that requests ask for are enforced: a random model keeps to them."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_config
from support.serving import CHATML, Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine
from llmchat.presets import get_format

TEMPLATE = (
    "{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}<tool_call>{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>"
    "{% endfor %}<|im_start|>assistant\n"
)
HERMES = replace(CHATML, format=get_format("template").with_template(TEMPLATE, {}))
HELLO = [{"role": "user", "content": "hi"}]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool("weather", city={"enum": ["Paris", "Rome"]}, days={"type": "integer", "maximum": 9}),
    tool("clock", zone={"type": "string", "pattern": "^[A-Z]{3}$"}),
]
SCHEMAS = {one["function"]["name"]: one["function"]["parameters"] for one in TOOLS}
SHORT = {
    "type": "object",
    "properties": {"size": {"enum": ["s", "m"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["size", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bound")
    base = save_tiny(folder / "base", tiny_config(max_position_embeddings=4096))
    specs = {
        "m": model_spec(lambda: TransformersEngine(base, weights="fp32"), HERMES, "m"),
        "plain": model_spec(lambda: TransformersEngine(base, weights="fp32"), CHATML, "plain"),
        "unbound": model_spec(lambda: ScriptedEngine(["Yes."]), HERMES, "unbound"),
    }
    with serving(specs, folder, slots=4) as running:
        yield running


def ask(run: Running, **fields: Any) -> Any:
    asked = {"model": "m", "messages": HELLO, "max_tokens": 1500, "temperature": 1} | fields
    return run.openai.chat.completions.create(**asked)


def spelt(call: Any) -> tuple[str, str]:
    return call.function.name, call.function.arguments


def check_calls(choice: Any, names: set[str]) -> int:
    calls = choice.message.tool_calls or []
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    for call in calls:
        assert call.function.name in names
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return len(calls)


@pytest.mark.parametrize("model", ["m", "plain"], ids=["own template", "written tools"])
def test_a_required_call_fits_its_schema(run: Running, model: str) -> None:
    answer = ask(run, model=model, tools=TOOLS, tool_choice="required", n=4, seed=1)
    for choice in answer.choices:
        assert check_calls(choice, set(SCHEMAS))


def test_a_named_tool_is_called_once_unless_parallel_calls_are_asked_for(run: Running) -> None:
    choice = {"type": "function", "function": {"name": "clock"}}
    fields = {"tools": TOOLS, "tool_choice": choice, "n": 8, "seed": 3}
    once = ask(run, **fields).choices
    assert [check_calls(one, {"clock"}) for one in once] == [1] * 8
    several = ask(run, parallel_tool_calls=True, **fields).choices
    assert max(check_calls(one, {"clock"}) for one in several) > 1


def test_parallel_calls_can_be_forbidden(run: Running) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "n": 8, "seed": 3}
    single = ask(run, parallel_tool_calls=False, **fields)
    assert [check_calls(choice, set(SCHEMAS)) for choice in single.choices] == [1] * 8
    several = ask(run, **fields)
    assert max(check_calls(choice, set(SCHEMAS)) for choice in several.choices) > 1


def test_calls_are_streamed_with_their_index(run: Running) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "seed": 3}
    whole = ask(run, **fields).choices[0].message.tool_calls
    streamed = [
        call
        for chunk in ask(run, stream=True, **fields)
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert [call.index for call in streamed] == list(range(len(whole)))
    assert [spelt(call) for call in streamed] == [spelt(call) for call in whole]


def test_tools_and_a_structure_bind_one_answer(run: Running) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "size", "schema": SHORT}}
    kinds = set()
    fields = {"tools": TOOLS, "response_format": form, "temperature": 2, "n": 16, "seed": 4}
    for choice in ask(run, **fields).choices:
        if choice.message.tool_calls:
            kinds.add("calls")
            check_calls(choice, set(SCHEMAS))
        else:
            kinds.add("structure")
            jsonschema.validate(json.loads(choice.message.content), SHORT)
    assert kinds == {"calls", "structure"}


@pytest.mark.parametrize("strict", [None, False, True])
def test_a_schema_is_enforced_whatever_strict_says(run: Running, strict: bool | None) -> None:
    schema = {"name": "size", "schema": SHORT, "strict": strict}
    answer = ask(run, response_format={"type": "json_schema", "json_schema": schema}, seed=5)
    jsonschema.validate(json.loads(answer.choices[0].message.content), SHORT)


@pytest.mark.parametrize(
    ("field", "fits"),
    [
        ({"json": SHORT}, lambda text: json.loads(text)["size"] in "sm"),
        ({"json": json.dumps(SHORT)}, lambda text: json.loads(text)["size"] in "sm"),
        ({"regex": "[a-c]{3}"}, lambda text: len(text) == 3 and set(text) <= set("abc")),
        ({"choice": ["red", "blue"]}, lambda text: text in ("red", "blue")),
        ({"grammar": 'start: "a" B\nB: /[0-9]{2}/'}, lambda text: text[1:].isdigit()),
    ],
    ids=["json", "json as text", "regex", "choice", "grammar"],
)
def test_structured_outputs_as_vllm_spells_them(run: Running, field: Any, fits: Any) -> None:
    answer = ask(run, extra_body={"structured_outputs": field}, seed=6)
    assert fits(answer.choices[0].message.content)
    text = run.openai.completions.create(
        model="m", prompt="x", max_tokens=300, extra_body={"structured_outputs": field}
    )
    assert fits(text.choices[0].text)


def test_any_json_object(run: Running) -> None:
    answer = ask(run, response_format={"type": "json_object"}, max_tokens=8, logprobs=True, seed=7)
    choice = answer.choices[0]
    assert choice.message.content.startswith("{") and len(choice.logprobs.content) == 8


def test_a_seed_repeats_bound_calls(run: Running) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "seed": 8, "n": 2}
    first, second = (
        [[spelt(call) for call in one.message.tool_calls] for one in ask(run, **fields).choices]
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"type": "string", "contentEncoding": "base64", "not": {}},
            }}},
            "response_format", "not",
        ),
        ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs", "look-ahead"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs", "choice"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "regex"),
        ({"structured_outputs": {"xgrammar": "a"}}, "structured_outputs.xgrammar", "xgrammar"),
        ({"guided_json": {}}, "guided_json", "structured_outputs.json"),
        ({"tools": [tool("f", a={"not": {}})]}, "tools.0.function.parameters", "not"),
    ],
    ids=["keyword", "lookahead", "no choices", "two", "unknown", "old name", "tool"],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_by_name(
    run: Running, fields: Any, param: str, word: str
) -> None:
    refused = run.http.post(
        "/v1/chat/completions", json={"model": "m", "messages": HELLO, **fields}
    )
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, param)
    assert word in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=["required", "by name", "structure"],
)
def test_an_engine_that_cannot_enforce_refuses(run: Running, fields: Any, param: str) -> None:
    asked = {"model": "unbound", "messages": HELLO, **fields}
    refused = run.http.post("/v1/chat/completions", json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
