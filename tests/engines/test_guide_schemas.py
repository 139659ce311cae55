"""JSON Schemas: the official test suite, and generated ones, with answers of a random model.

A schema is refused or it holds: no value that breaks it is ever accepted.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_config
from support.guided import accepts, answer, open_tiny

from llmchat.engines import Sampling
from llmchat.engines.guide import check
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import UsageError
from llmchat.structure import from_schema

pytestmark = pytest.mark.usefixtures("one_thread")
SUITE = json.loads((Path(__file__).parents[1] / "support/json_schema_suite.json").read_text())
GROUPS = [(kind, group) for kind, groups in SUITE["groups"].items() for group in groups]
ENFORCED = {
    "additionalProperties", "allOf", "anchor", "anyOf", "const", "default", "enum",
    "exclusiveMaximum", "exclusiveMinimum", "items", "maxItems", "maxLength", "maximum",
    "maxProperties", "minItems", "minLength", "minimum", "minProperties", "multipleOf", "oneOf",
    "pattern", "patternProperties", "prefixItems", "properties", "ref", "required", "type",
    "boolean_schema", "infinite-loop-detection", "format",
    *(f"format {name}" for name in (
        "date", "date-time", "time", "email", "ipv4", "ipv6", "uuid", "hostname", "duration", "uri",
    )),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, kernel_folder: Path) -> TransformersEngine:
    base = save_tiny(tmp_path_factory.mktemp("base"), tiny_config(max_position_embeddings=512))
    return open_tiny(base, kernel_folder)


def is_enforced(schema: Any) -> bool:
    try:
        check(from_schema(schema))
    except UsageError:
        return False
    return True


def errors(text: str, schema: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    return [error.message for error in validator.iter_errors(json.loads(text))]


def test_no_invalid_value_of_the_official_suite_is_accepted() -> None:
    kinds, valid = set(), 0
    for kind, group in GROUPS:
        if not is_enforced(group["schema"]):
            continue
        kinds.add(kind)
        structure = from_schema(group["schema"])
        for is_valid, value in group["tests"]:
            accepted = accepts(structure, json.dumps(value, ensure_ascii=False))
            assert is_valid or not accepted, (kind, group["description"], value)
            valid += is_valid and accepted
    assert kinds == ENFORCED
    assert valid > 400


def test_answers_follow_the_schemas_of_the_official_suite(engine: TransformersEngine) -> None:
    ended = 0
    for kind, group in GROUPS:
        if is_enforced(group["schema"]):
            sampling = Sampling(temperature=5, seed=7, max_tokens=60, logprobs=0)
            sampling = with_schema(sampling, group["schema"])
            text, finish, _ = answer(engine, sampling)
            if finish.reason == "stop":
                ended += 1
                assert not errors(text, group["schema"]), (kind, text)
    assert ended > 60


def with_schema(sampling: Sampling, schema: Any) -> Sampling:
    return replace(sampling, structure=from_schema(schema))


NAMES = st.sampled_from(["a", "name", "the fox", "é", 'quo"te', "x\ny"])
NUMBERS = st.integers(-(10**6), 10**6)


def ranges(low: str, high: str, most: int) -> st.SearchStrategy[dict[str, int]]:
    """Some of two bounds in their order."""
    bound = st.integers(0, most)
    return st.one_of(
        st.just({}),
        st.tuples(bound, bound).map(lambda pair: {low: min(pair), high: max(pair)}),
        bound.map(lambda value: {high: value}),
    )


SCALARS = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    ranges("minLength", "maxLength", 8).map(lambda r: {"type": "string", "maxLength": 6} | r),
    st.sampled_from([
        {"type": "string", "pattern": "^[a-z]{1,3}-[0-9]+$", "maxLength": 9},
        {"type": "string", "pattern": "fox|dog", "maxLength": 9},
        {"type": "string", "pattern": r"^\w+\s\d{2}$", "maxLength": 9},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "ipv4"},
        {"type": "string", "format": "time", "maxLength": 15},
    ]),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + abs(span)},
        NUMBERS,
        NUMBERS,
    ),
    st.builds(lambda one: {"type": "integer", "multipleOf": one, "minimum": 0, "maximum": 10**4},
              st.integers(1, 50)),
    st.just({"type": "number", "exclusiveMinimum": -1, "maximum": 1.5}),
    st.lists(st.one_of(st.none(), st.booleans(), NUMBERS, NAMES), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    NAMES.map(lambda value: {"const": value}),
)  # fmt: skip


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def build(properties: dict[str, Any], required: list[int], other: Any) -> dict[str, Any]:
        names = sorted({[*properties][index % len(properties)] for index in required})
        return {"type": "object", "properties": properties, "required": names} | {
            "additionalProperties": other, "maxProperties": len(properties) + 2
        } if len(names) == len(properties) else {
            "type": "object", "properties": properties, "required": names,
            "additionalProperties": False,
        }  # fmt: skip

    return st.builds(
        build,
        st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        st.lists(st.integers(0, 5), max_size=3),
        st.one_of(st.just(False), inner),
    )


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda items, r: {"type": "array", "items": items, "maxItems": 2} | r,
            inner,
            ranges("minItems", "maxItems", 3),
        ),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {"type": "array", "prefixItems": items, "items": False}
        ),
    )


def unions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        inner.map(lambda part: {"$ref": "#/$defs/part", "$defs": {"part": part}}),
        st.builds(lambda a, b: {"allOf": [a, b]}, inner, st.sampled_from([{}, {"title": "T"}])),
    )


SCHEMAS = st.recursive(
    SCALARS, lambda inner: st.one_of(objects(inner), arrays(inner)), max_leaves=6
)
ROOTS = st.one_of(SCHEMAS, unions(SCHEMAS))


@given(ROOTS, st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 5.0]))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_answers_follow_generated_schemas(
    engine: TransformersEngine, schema: Any, seed: int, temperature: float
) -> None:
    """A schema whose parts exclude each other can be refused; an answer that ends is valid."""
    if not is_enforced(schema):
        return
    sampling = Sampling(temperature=temperature, seed=seed, max_tokens=150)
    text, finish, _ = answer(engine, with_schema(sampling, schema))
    if finish.reason == "stop":
        assert not errors(text, schema), text
