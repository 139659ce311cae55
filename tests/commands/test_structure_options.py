"""`llmchat chat` with --schema, --regex, --choice and --grammar: to a loopback server that posed as
vLLM or as another, before anything is sent.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import Asked, Told, json_of, said, serving, sse
from support.worlds import make_world

from llmchat.cli import main
from llmchat.settings import World


class Server:
    """A loopback server with one model, and the requests for answers it got."""

    def __init__(self, owner: str = "vllm", text: str = '{"name": "Ada"}', reason: str = "stop"):
        self.owner, self.text, self.reason = owner, text, reason
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def __call__(self, asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return json_of({"data": [{"id": "m", "owned_by": self.owner, "max_model_len": 2048}]})
        if "completions" not in asked.path:
            return json_of({"tokens": [1] * 7}) if asked.path == "/tokenize" else json_of({}, 404)
        self.asked.append(asked.body)
        return Told(sse(said(self.text), said("", self.reason)))


@pytest.fixture
def server() -> Iterator[Server]:
    app = Server()
    with serving(app) as (url, _):
        app.url = url
        yield app


def run(home: Path, server: Server, *arguments: str, **env: str) -> tuple[int, World]:
    world = make_world(home, **env)
    return main(["chat", "--url", server.url, *arguments, "Hello"], world), world


def printed(world: World) -> tuple[str, str]:
    return world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


def structure_of(server: Server) -> Any:
    return server.asked[-1].get("structured_outputs")


def test_each_flag_reaches_the_engine(server: Server, tmp_path: Path) -> None:
    grammar = tmp_path / "g.lark"
    grammar.write_text('start: "{}"')
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "object"}')
    for arguments, expected in [
        (("--schema", '{"type": "object"}'), {"json": {"type": "object"}}),
        (("--schema", str(schema)), {"json": {"type": "object"}}),
        (("--regex", "a b"), {"regex": "a b"}),
        (("--choice", "a", "--choice", "b c"), {"choice": ["a", "b c"]}),
        (("--grammar", str(grammar)), {"grammar": 'start: "{}"'}),
        ((), None),
    ]:
        run(tmp_path, server, *arguments)
        assert structure_of(server) == expected
    run(tmp_path, server, "--schema", "regex str, age int")
    assert list(structure_of(server)["json"]["properties"]) == ["regex", "age"]


def test_flag_goes_before_variable_and_config(server: Server, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    assert main(["config", "set", "schema", "choice yes no"], world) == 0
    run(tmp_path, server)
    assert structure_of(server) == {"choice": ["yes", "no"]}
    run(tmp_path, server, LLMCHAT_SCHEMA="regex [a-z]+")
    assert structure_of(server) == {"regex": "[a-z]+"}
    run(tmp_path, server, "--choice", "x", LLMCHAT_SCHEMA="regex [a-z]+")
    assert structure_of(server) == {"choice": ["x"]}
    run(tmp_path, server, "--schema", "off")
    assert structure_of(server) is None


def test_config_refuses_a_malformed_structure(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    assert main(["config", "set", "schema", "name strr"], world) == 2
    assert printed(world)[1] == (
        "error: the field `name` has the unknown type `strr`\nhint: did you mean `str`?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schema", "a", "--regex", "b"), "--schema and --regex exclude each other"),
        (("--schema", "no.json"), "no.json cannot be read: No such file or directory"),
        (("--schema", "{"), "the JSON Schema is not valid JSON: Expecting property name"),
        (("--schema", "name strr"), "the field `name` has the unknown type `strr`"),
        (("--choice", "a", "--choice", "a"), "the choice `a` is given twice"),
        (("--choice", ""), "a choice is empty"),
        (("--grammar", "no.lark"), "no.lark cannot be read"),
    ],
)
def test_bad_input_is_told_before_a_server_is_asked(
    server: Server, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, world = run(tmp_path, server, *arguments)
    assert code == 2 and printed(world)[1].startswith(f"error: {message}")
    assert not server.asked


def test_what_the_server_cannot_enforce_is_told_before_it_is_asked(
    server: Server, tmp_path: Path
) -> None:
    server.owner = "library"
    code, world = run(tmp_path, server, "--regex", "a")
    assert code == 2 and not server.asked
    assert printed(world)[1].startswith(
        "error: Ollama cannot bind an answer to a regular expression\nhint: vLLM, "
    )


def test_session_keeps_no_structure_of_a_flag(server: Server, tmp_path: Path) -> None:
    run(tmp_path, server, "--choice", "x")
    run(tmp_path, server, "-c")
    assert structure_of(server) is None


PERSON = ("--schema", "name, age int")
WHOLE = '{"name": "Ada", "age": 36}'


@pytest.mark.parametrize(
    ("arguments", "text", "reason", "code"),
    [
        (PERSON, WHOLE, "stop", 0),
        (PERSON, WHOLE, "length", 0),
        (PERSON, '{\n  "name": "\\u0041da",\n  "age": 36\n}', "stop", 0),
        (PERSON, '{"name": "Ada", "a', "length", 1),
        (PERSON, '{"name": "Ada", "age": "old"}', "stop", 1),
        (("--regex", "[0-9]{4}"), "2024", "length", 0),
        (("--regex", "[0-9]{4}"), "202", "length", 1),
        (("--regex", " ?a\n"), " a\n", "stop", 0),
        (("--choice", "yes", "--choice", "yes, always"), "yes", "length", 0),
        (("--choice", "yes", "--choice", "no"), "maybe", "stop", 1),
        # Python's llguidance knows no lookahead, but the server may.
        (("--regex", "(?=a)a"), "a", "stop", 0),
        (("--regex", "(?=a)a"), "a", "length", 1),
    ],
)
def test_exit_code_tells_whether_the_answer_is_whole(
    server: Server, tmp_path: Path, arguments: tuple[str, ...], text: str, reason: str, code: int
) -> None:
    server.text, server.reason = text, reason
    found, world = run(tmp_path, server, *arguments)
    out, err = printed(world)
    assert (found, out) == (code, text if text.endswith("\n") else f"{text}\n")
    assert err.startswith("note: the answer ") == bool(code)


def test_note_names_the_way_out(server: Server, tmp_path: Path) -> None:
    server.text, server.reason = '{"name": "A', "length"
    _, world = run(tmp_path, server, *PERSON, "--max-tokens", "1")
    assert printed(world)[1] == (
        "note: the answer was cut off after 1 token and is not complete; a larger --max-tokens"
        " lets it end\n"
    )
    _, world = run(tmp_path, server, *PERSON)
    assert "the context window is full; a larger --context" in printed(world)[1]
    code, world = run(tmp_path, server, *PERSON, "-q")
    assert (code, printed(world)[1]) == (1, "")
    server.reason = "stop"
    _, world = run(tmp_path, server, *PERSON)
    assert "not a complete value of the schema: a stop string ended it, or its" in printed(world)[1]


def test_json_has_the_parsed_value(server: Server, tmp_path: Path) -> None:
    server.text = WHOLE
    code, world = run(tmp_path, server, *PERSON, "--json")
    assert code == 0 and json.loads(printed(world)[0])["value"] == {"name": "Ada", "age": 36}
    server.text, server.reason = WHOLE[:-1], "length"
    code, world = run(tmp_path, server, *PERSON, "--json")
    assert code == 1 and "value" not in json.loads(printed(world)[0])
    _, world = run(tmp_path, server, "--json")
    assert "value" not in json.loads(printed(world)[0])


def test_extract_prints_the_value(server: Server, tmp_path: Path) -> None:
    server.text = '{"name": "```\\nx\\n```", "age": 1}'
    code, world = run(tmp_path, server, *PERSON, "-x")
    assert (code, printed(world)[0]) == (0, f"{server.text}\n")
    server.text = "```\nx = 1\n```"
    code, world = run(tmp_path, server, "--regex", "(?s:.*)", "-x")
    assert (code, printed(world)[0]) == (0, "x = 1\n")


def test_answer_with_a_structure_keeps_what_looks_like_a_thought(
    server: Server, tmp_path: Path
) -> None:
    server.text = '{"name": "<think>x</think>", "age": 1}'
    code, world = run(tmp_path, server, *PERSON)
    assert (code, printed(world)[0]) == (0, f"{server.text}\n")
