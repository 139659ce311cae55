"""Answers that a grammar allows are calls that fit their schemas, always, in every dialect."""

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.grammar_walks import Grammars

from llmchat.calls import ToolRequest
from llmchat.engines import guide
from llmchat.structure import Structure
from llmchat.tool_syntax import schemas
from llmchat.tool_syntax.call_parser import CallParser
from llmchat.tool_syntax.dialect import Dialect
from llmchat.tool_syntax.grammar import answer_grammar
from llmchat.tool_syntax.table import DIALECTS, GENERIC, PLAIN

ALL = (*DIALECTS, PLAIN)
BY_NAME = {dialect.name: dialect for dialect in ALL}
Tool = dict[str, Any]


def tool(name: str, properties: dict[str, Any], *required: str) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = (
    tool("time", {}),
    tool(
        "weather",
        {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 0, "maximum": 14},
            "unit": {"enum": ["c", "f"]},
            "metric": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
        },
        "city",
    ),
    # A name that begins as another does, a pattern, and a schema with references.
    tool("weather_at", {"when": {"type": "string", "pattern": "^[0-9]{2}$"}}, "when"),
    {
        "type": "function",
        "function": {
            "name": "route",
            "parameters": {
                "type": "object",
                "properties": {
                    "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "maxItems": 2}
                },
                "required": ["stops"],
                "$defs": {
                    "stop": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "km": {"type": "number"}},
                        "required": ["name"],
                        "additionalProperties": False,
                    }
                },
            },
        },
    },
)


KNOWN = {one["function"]["name"]: schemas.parameters(one) for one in TOOLS}
AUTO = ToolRequest(TOOLS)


def parsed(
    dialect: Dialect, request: ToolRequest, text: str, rng: random.Random
) -> tuple[str, list[tuple[str, Any]]]:
    """The text that is shown and the calls, of an answer that arrives in random pieces."""
    parser, shown, calls = CallParser(dialect, request), "", []
    while text:
        size = rng.choice((1, 2, 5, 50))
        piece, found = parser.feed(text[:size])
        shown, text = shown + piece, text[size:]
        calls += found
    piece, found = parser.flush()
    return shown + piece, [(call.name, call.arguments) for call in (*calls, *found)]


def check_walk(
    grammars: Grammars, dialect: Dialect, request: ToolRequest, seed: int, start: str = ""
) -> bool:
    """Whether a random walk ended; then it is calls that fit, and nothing else but `start`."""
    rng = random.Random(seed)
    # What precedes a call in harmony's channels is shown or hidden, and tested below.
    start = start or (dialect.before if dialect.channels else "")
    text = grammars.walk(answer_grammar(dialect, request, None), rng, start)
    if not text:
        return False
    shown, calls = parsed(dialect, request, text, rng)
    assert calls and not shown.strip(), text
    for name, arguments in calls:
        known = next(one for one in request.tools if one["function"]["name"] == name)
        jsonschema.validate(arguments, schemas.parameters(known))
    assert request.parallel or len(calls) == 1
    return True


@pytest.mark.parametrize("special", [False, True], ids=["as text", "as tokens"])
@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_required_calls_always_parse(dialect: Dialect, special: bool) -> None:
    grammars = Grammars(dialect.marks if special else ())
    ended = [
        check_walk(grammars, dialect, ToolRequest(TOOLS, "required", parallel=seed % 2 == 0), seed)
        for seed in range(12)
    ]
    assert sum(ended) >= 4


@pytest.mark.parametrize(
    "start",
    [
        '<tool_call>\n{"name": "',
        "I look. <tool_call>",
        '{"name": "weather", ',
        '[{"name": "route", ',
        '```json\n{"name": "weather", ',
        'I look.\n```\n[{"name": "weather_at", ',
    ],
)
def test_calls_in_a_free_answer_always_parse(start: str) -> None:
    grammars, ended = Grammars(), 0
    for seed in range(12):
        rng = random.Random(seed)
        text = grammars.walk(answer_grammar(GENERIC, AUTO, None), rng, start)
        shown, calls = parsed(GENERIC, AUTO, text, rng)
        ended += bool(text)
        assert not text or (calls and shown.strip() in ("", "I look.")), text
        for name, arguments in calls:
            jsonschema.validate(arguments, KNOWN[name])
    assert ended >= 4


_PLAIN_SCHEMAS = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "integer"}),
    st.just({"type": "number"}),
    st.just({"type": "boolean"}),
    st.builds(lambda least: {"type": "integer", "minimum": least}, st.integers(-9, 9)),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(1, 5)),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.sampled_from(["a", "b c", "1", "</x>", "'", 7, True, None]), min_size=1,
                 unique_by=repr),
    ),
)  # fmt: skip
_SCHEMAS = st.recursive(
    _PLAIN_SCHEMAS,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
        st.builds(
            lambda properties: {
                "type": "object", "properties": properties, "additionalProperties": False,
                "required": sorted(properties)[:1],
            },
            st.dictionaries(st.sampled_from(["a", "b", "c_d"]), inner, max_size=2),
        ),
        st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner),
    ),
    max_leaves=4,
)  # fmt: skip
_PROPERTIES = st.dictionaries(st.sampled_from(["x", "y", "long_name"]), _SCHEMAS, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), _PROPERTIES, st.integers(0, 2), st.integers(0, 10**6))
def test_random_tools_are_called_as_their_schemas_say(
    dialect: Dialect, properties: dict[str, Any], required: int, seed: int
) -> None:
    tools = (tool("f", properties, *sorted(properties)[:required]), tool("g", {}))
    check_walk(Grammars(), dialect, ToolRequest(tools, "required"), seed)


def accepts(text: str, request: ToolRequest, dialect: Dialect = GENERIC) -> bool:
    return Grammars().accepts(answer_grammar(dialect, request, None), text)


FINAL = "<|channel|>final<|message|>"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "",
        "A < b, {\"a\": 1} and `code`.",
        '{"city": 1}',
        '{"name": "Ann", "age": 5}',
        '```json\n{"name": "weather girl"}\n```',
        '```python\nprint("{}")\n```',
        CALL,
        f"Let me look. {CALL}",
        f"{CALL}\n{CALL}",
        '{"name": "weather", "arguments": {"city": "Paris"}}',
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```',
        '```json\n{\n  "name": "weather",\n  "arguments": {"city": "Paris"}\n}\n```',
        '[{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]',
        'Sure:\n```json\n{"name": "time", "arguments": {}}\n```',
        '```json\n{"name": "time", "arguments": {}}\n```\n```json\n'
        '{"name": "time", "arguments": {}}\n```',
        'A person:\n```json\n{"name": "Ann"}\n```\nAnd more, {"name": "x"}.',
        f'A person:\n```json\n{{"name": "Ann"}}\n```\n{CALL}',
    ],
)  # fmt: skip
def test_a_free_answer_is_text_or_text_and_calls_or_bare_calls(text: str) -> None:
    assert accepts(text, AUTO)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('<tool_call>\n{"name": "other"', '<tool_call>\n{"name": "'),
        ('Look. <tool_call>\n{"name": "weather", "arguments": {"city": 5', '{"city": '),
        ('{"name": "weather", "other"', '"weather", "'),
        ('```json\n{"name": "weather", "arguments": {"city": 5', '{"city": '),
        ('So: ```json\n{"name": "weather", "arguments": {"city": 5', '{"city": '),
        ('[{"name": "weather", "arguments": {}}]', '"arguments": {'),
        (f"{CALL}\n\nIt is sunny.", "</tool_call>\n"),
    ],
    ids=[
        "unknown name",
        "wrong type",
        "bare",
        "fenced",
        "fenced after text",
        "list",
        "text behind a call",
    ],
)
def test_a_call_cannot_break_off_or_break_its_schema(text: str, allowed: str) -> None:
    count = Grammars().refused_at(answer_grammar(GENERIC, AUTO, None), text)
    assert text.encode()[:count].decode().endswith(allowed)


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_text_is_free_in_every_dialect(dialect: Dialect) -> None:
    text = "Hello, this is <b>text</b> [1] {x} and `more`: 5 > 3."
    assert accepts(FINAL + text if dialect.channels else text, AUTO, dialect)


@pytest.mark.parametrize("special", [False, True], ids=["as text", "as tokens"])
def test_harmony_may_think_before_it_calls_or_answers(special: bool) -> None:
    dialect = BY_NAME["harmony"]
    grammars = Grammars(dialect.marks if special else ())
    thought = "<|channel|>analysis<|message|>Hm, {x}.<|end|><|start|>assistant"
    call = "<|channel|>commentary to=functions.time <|constrain|>json<|message|>{}"
    free = answer_grammar(dialect, AUTO, None)
    required = answer_grammar(dialect, ToolRequest(TOOLS, "required"), None)
    for text in (call, thought + call):
        assert grammars.accepts(free, text) and grammars.accepts(required, text)
    for text in (f"{FINAL}Hi", f"{thought}{FINAL}Hi"):
        assert grammars.accepts(free, text) and not grammars.accepts(required, text)


def test_a_required_call_begins_at_once() -> None:
    assert not accepts("Hello", ToolRequest(TOOLS, "required"))
    assert accepts(CALL, ToolRequest(TOOLS, "required"))


def test_only_the_named_tool_can_be_called() -> None:
    named = ToolRequest(TOOLS, name="time")
    assert not accepts(CALL, named)
    assert accepts('<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>', named)


def test_one_call_is_the_end_where_parallel_calls_are_forbidden() -> None:
    single = ToolRequest(TOOLS, parallel=False)
    assert accepts(CALL, single) and not accepts(f"{CALL}\n{CALL}", single)


PLAIN_CALLS = (
    '{"name": "weather", "arguments": {"city": "Paris"}}; '
    '{"name": "route", "arguments": {"stops": [{"name": "a"}]}}'
)
SIZE = {"type": "object", "properties": {"size": {"enum": ["s", "m"]}}, "required": ["size"],
        "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(
    ("structure", "text", "other"),
    [
        (Structure("schema", json.dumps(SIZE)), '{"size": "s"}', '{"size": "x"}'),
        (Structure("json"), '{"a": [1]}', "[1]"),
        (Structure("regex", "[a-c]{3}"), "abc", "abcd"),
        (Structure("choice", '["red", "blue"]'), "blue", "green"),
        (Structure("grammar", 'start: "a" B\nB: /[0-9]+/'), "a12", "ab"),
    ],
    ids=lambda value: value.kind if isinstance(value, Structure) else "",
)
@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_an_answer_is_calls_or_has_its_structure(
    dialect: Dialect, structure: Structure, text: str, other: str
) -> None:
    grammar, start = answer_grammar(dialect, AUTO, structure), FINAL if dialect.channels else ""
    assert Grammars().accepts(grammar, start + text)
    assert not Grammars().accepts(grammar, start + other)
    calls = {"hermes": CALL, "llama-3": PLAIN_CALLS.replace("arguments", "parameters"),
             "json": PLAIN_CALLS.replace("; ", "\n")}  # fmt: skip
    if dialect.name in calls:
        assert Grammars().accepts(grammar, calls[dialect.name])


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_every_grammar_passes_the_check_of_structures(dialect: Dialect) -> None:
    for request in (AUTO, ToolRequest(TOOLS, "required"), ToolRequest(TOOLS, parallel=False)):
        guide.check(Structure("grammar", answer_grammar(dialect, request, None)))
