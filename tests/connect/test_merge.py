"""Settings in a client's own file: all else stays, and a second time changes nothing."""

import json
import tomllib
from copy import deepcopy
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchat.connect.clients import ConfigFile
from llmchat.connect.merge import merge, merged_text
from llmchat.errors import UsageError

JSON = ConfigFile(kind="json")
YAML = ConfigFile(kind="yaml", entry="model_id")
TOML = ConfigFile(kind="toml")
keys = st.sampled_from("abc")
inner = st.dictionaries(keys, st.integers(0, 3) | st.dictionaries(keys, st.integers(0, 3)))
tables = st.dictionaries(keys, st.integers(0, 3) | inner)


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in leaves(inner, (*path, key)).items()}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables, tables)
def test_merged_json_has_the_settings_and_all_else_that_was_there(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    try:
        text = merged_text(json.dumps(old), JSON, deepcopy(new), "x.json")
    except UsageError as error:
        assert "is not a table" in error.message
        return
    after = leaves(json.loads(text))
    for path, value in leaves(new).items():
        assert value == {} or after[path] == value
    replaced = set(leaves(new))
    for path, value in leaves(old).items():
        own = any(path[: len(one)] == one or one[: len(path)] == path for one in replaced)
        assert own or after[path] == value
    assert merged_text(text, JSON, new, "x.json") == text


def test_an_entry_of_a_list_is_replaced_by_its_key_and_others_stay() -> None:
    old = [{"model_id": "a", "aliases": ["x"], "api_base": "old"}, {"model_id": "b"}]
    merge(old, [{"model_id": "a", "api_base": "new"}, {"model_id": "c"}], "model_id", "f")
    assert old == [
        {"model_id": "a", "aliases": ["x"], "api_base": "new"},
        {"model_id": "b"},
        {"model_id": "c"},
    ]


def test_comments_of_yaml_stay_where_keys_are_added() -> None:
    text = "# mine\n- model_id: a  # keep\n"
    longer = merged_text(text, YAML, [{"model_id": "b"}], "x.yaml")
    assert longer == text + "- model_id: b\n"
    assert merged_text(longer, YAML, [{"model_id": "b"}], "x.yaml") == longer


def test_an_indented_list_of_yaml_is_written_anew_rather_than_broken() -> None:
    text = "  - model_id: a\n"
    longer = merged_text(text, YAML, [{"model_id": "b"}], "x.yaml")
    assert yaml.safe_load(longer) == [{"model_id": "a"}, {"model_id": "b"}]


def test_keys_of_yaml_are_never_repeated() -> None:
    text = merged_text("models:\n- model_id: a\n", YAML, {"models": [{"model_id": "b"}]}, "x.yaml")
    assert text.count("models:") == 1
    assert yaml.safe_load(text)["models"] == [{"model_id": "a"}, {"model_id": "b"}]


def test_toml_keeps_its_comments() -> None:
    text = '# mine\nmodel = "a"\n\n[t]\nx = 1  # keep\n'
    changed = merged_text(text, TOML, {"model": "b", "t": {"y": 2}}, "x.toml")
    assert "# mine" in changed and "# keep" in changed
    assert tomllib.loads(changed) == {"model": "b", "t": {"x": 1, "y": 2}}
    assert merged_text(changed, TOML, {"model": "b", "t": {"y": 2}}, "x.toml") == changed


def test_defaults_fill_only_what_a_file_does_not_say() -> None:
    file = ConfigFile(kind="yaml", defaults={"name": "Local", "schema": "v1"})
    text = merged_text("name: Mine\n", file, {"models": []}, "x.yaml")
    assert yaml.safe_load(text) == {"name": "Mine", "schema": "v1", "models": []}
    assert yaml.safe_load(merged_text(" \n", file, {}, "x")) == {"name": "Local", "schema": "v1"}


@pytest.mark.parametrize(
    ("text", "file", "reason"),
    [
        ('{"a": 1, // mine\n}', JSON, "x cannot be read as JSON"),
        ("a: [", YAML, "x cannot be read as YAML"),
        ("a = ", TOML, "x cannot be read as TOML"),
        ("[1]", JSON, "x is not a table"),
        ('{"provider": [1]}', JSON, "`provider` in x is not a table"),
        ('{"provider": "no"}', JSON, "`provider` in x is not a table"),
        ("[" * 100_000, JSON, "x cannot be read as JSON"),
    ],
)
def test_a_file_that_would_lose_something_is_refused(
    text: str, file: ConfigFile, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        merged_text(text, file, {"provider": {"llmchat": {}}}, "x")
