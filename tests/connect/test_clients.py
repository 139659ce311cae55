"""The files of clients: complete, and what they print is valid in the client's own format."""

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.worlds import make_world

from llmchat.connect import Client, Values, all_clients, find_client
from llmchat.connect.models import Offered, problems
from llmchat.connect.setup import parts
from llmchat.errors import UsageError

VALUES = Values(
    model='a "strange" model\'s name.gguf',
    url="http://127.0.0.1:8123/v1",
    root="http://127.0.0.1:8123",
    window=16384,
    output=4096,
    home="/home/u",
    key="a key",
)
ALL = pytest.mark.parametrize("client", all_clients(), ids=lambda client: client.name)


def strings(value: Any) -> list[Any]:
    """Every key and value in nested tables and lists."""
    if isinstance(value, dict):
        return [inner for pair in value.items() for part in pair for inner in strings(part)]
    if isinstance(value, list):
        return [inner for part in value for inner in strings(part)]
    return [value]


def words_of(text: str, kind: str) -> list[Any]:
    """What a text says in its format."""
    readers: dict[str, Any] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    if kind in readers:
        return strings(readers[kind](text))
    if kind == "shell":
        return [word.partition("=")[2] or word for word in shlex.split(text)]
    return [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]


@ALL
def test_a_client_names_model_and_address_in_its_own_format(client: Client, tmp_path: Path) -> None:
    found = parts(client, VALUES, make_world(tmp_path))
    said = [word for part in found for word in words_of(part.text, part.file.kind)]
    assert VALUES.url in said or VALUES.root in said
    named = [word for word in said if isinstance(word, str) and VALUES.model in word]
    # Open WebUI asks the server for its models.
    assert named or client.name == "open-webui"
    assert not [word for word in said if isinstance(word, str) and re.search(r"\{\w+\}", word)]


@ALL
def test_the_files_of_a_client_are_below_the_home_of_its_world(
    client: Client, tmp_path: Path
) -> None:
    for part in parts(client, VALUES, make_world(tmp_path)):
        assert part.path is None or part.path.is_relative_to(tmp_path)


@ALL
def test_entries_of_lists_can_be_recognised(client: Client) -> None:
    def check(value: Any, entry: str) -> None:
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(value, list) and isinstance(inner, dict):
                assert entry in inner
            if isinstance(inner, dict | list):
                check(inner, entry)

    for file in client.files:
        assert (file.settings is None) == bool(file.text)
        if file.settings is not None:
            assert "other" in file.path
            check(file.settings, file.entry)


def test_a_variable_of_the_client_names_its_folder(tmp_path: Path) -> None:
    world = make_world(tmp_path, LLM_USER_PATH=str(tmp_path / "of-llm"), XDG_CONFIG_HOME="/x")
    (part,) = parts(find_client("llm"), VALUES, world)
    assert part.path == tmp_path / "of-llm" / "extra-openai-models.yaml"
    (part,) = parts(find_client("opencode"), VALUES, world)
    assert part.path == Path("/x/opencode/opencode.json")


def test_an_unknown_client_gets_the_names_that_come_close() -> None:
    with pytest.raises(UsageError) as caught:
        find_client("open-code")
    assert caught.value.message == "no client is called `open-code`"
    assert "opencode" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        find_client("../../etc/passwd")
    assert "llm" in caught.value.hint


NO_TOOLS = "opencode requires tools, which the prompt format of m does not have"


def a_model(window: int, tools: bool | None) -> Offered:
    return Offered("m", "m", window, window, tools)


@pytest.mark.parametrize(
    ("client", "window", "tools", "expected"),
    [
        ("opencode", 32768, True, []),
        ("opencode", 32768, None, []),
        ("opencode", 0, True, []),
        ("opencode", 8192, True, ["opencode requires a window of 16,384 tokens; m has 8,192"]),
        ("opencode", 16384, False, [NO_TOOLS]),
        ("llm", 8192, False, []),
    ],
)  # fmt: skip
def test_a_model_is_enough_for_a_client_or_lacks_something(
    client: str, window: int, tools: bool | None, expected: list[str]
) -> None:
    assert problems(find_client(client), a_model(window, tools)) == expected


@ALL
def test_the_page_has_a_row_for_each_client(client: Client) -> None:
    page = (Path(__file__).parents[2] / "docs/clients.md").read_text("utf-8")
    row = f"| [{client.name}]({client.source}) | {client.protocol} | {client.window:,} | "
    (line,) = [line for line in page.splitlines() if line.startswith(row)]
    assert ("| required |" in line) == client.tools
