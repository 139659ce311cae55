"""Errors in Anthropic's form, as Anthropic's client raises them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from support.serving import Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server.keys import Keys

MODELS = {"m": model_spec(lambda: ScriptedEngine(["Hello there."]))}
ASK: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}
USED = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a"}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(MODELS, tmp_path_factory.mktemp("server")) as running:
        yield running


def said(*contents: Any) -> dict[str, Any]:
    """Messages of user and assistant in turns."""
    roles = ["user", "assistant"] * len(contents)
    pairs = zip(roles, contents, strict=False)
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


# Changes to a valid request, and words of the error.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no message": ({"messages": []}, "messages"),
    "no limit": ({"max_tokens": None}, "max_tokens"),
    "a limit of zero": ({"max_tokens": 0}, "max_tokens"),
    "temperature": ({"temperature": 2.5}, "temperature"),
    "an image": (
        said([IMAGE]), "messages.0.content.0.type: `image` blocks are not supported; this server"
    ),
    "an image in a result": (
        said("hi", [USED], [{**RESULT, "content": [IMAGE]}]), "messages.2.content.0.content.0.type"
    ),
    "a result of a tool of Anthropic's": (
        said("hi", [{**RESULT, "type": "web_fetch_tool_result", "content": {"url": "x"}}]),
        "messages.1.content.0.type: `web_fetch_tool_result` blocks are not supported",
    ),
    "a result that is an object": (
        said("hi", [USED], [{**RESULT, "content": {"a": 1}}]),
        "messages.2.content.0.content: must be a text or a list of blocks",
    ),
    "a block without its text": (said([{"type": "text"}]), "a `text` block requires `text`"),
    "a call from the user": (said([USED]), "not allowed in the role `user`"),
    "a result without a call": (
        said("hi", "yes", [RESULT]),
        "no earlier message has an unanswered `tool_use` with the id `a`",
    ),
    "a call without a result": (said("hi", [USED], "and?"), "`a` has no `tool_result`"),
    "an unknown field": ({"temprature": 1}, "`temprature` is not supported"),
    "a server of tools": ({"mcp_servers": [{"url": "x"}]}, "`mcp_servers` is not supported"),
    "an edit of the conversation": (
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        "context_management.edits.0.type: the edit `clear_tool_uses_20250919` is not supported",
    ),
    "an unknown field of a message": (
        {"messages": [{"role": "user", "content": "hi", "weight": 1}]}, "`messages.0.weight`"
    ),
    "an unknown field of a block": (
        said([{"type": "text", "text": "hi", "parsed": 1}]),
        "`messages.0.content.0.parsed` is not supported in a `text` block",
    ),
    "a field of another block": (
        said("hi", [{**USED, "text": "x"}], [RESULT]), "`messages.1.content.0.text`"
    ),
    "an unknown field in a result": (
        said("hi", [USED], [{**RESULT, "content": [{"type": "text", "text": "a", "id": "b"}]}]),
        "`messages.2.content.0.content.0.id`",
    ),
    "an unknown field of the system text": (
        {"system": [{"type": "text", "text": "a", "id": "b"}]}, "`system.0.id`"
    ),
    "a call of a program": (
        said("hi", [{**USED, "caller": {"type": "code_execution_20250825"}}], [RESULT]),
        "`messages.1.content.0.caller`",
    ),
    "a tool of Anthropic's": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tools.0.type: tools of type `web_search_20250305` are not supported",
    ),
    "a set of tools": (
        {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
        "tools.0.type: tools of type `mcp_toolset` are not supported",
    ),
    "a tool without a name": ({"tools": [{"input_schema": {}}]}, "requires `name`"),
    "a tool without a schema": ({"tools": [{"name": "f"}]}, "requires `input_schema`"),
    "a schema that nothing enforces": (
        {"tools": [{"name": "f", "input_schema": {"type": "object", "not": {}}}]},
        "tools.0.input_schema",
    ),
    "a tool that nothing offers": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "`g`"
    ),
    "a choice without tools": ({"tool_choice": {"type": "any"}}, "tool_choice"),
    "a choice without a name": (
        {"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"
    ),
    "thinking without a budget": ({"thinking": {"type": "enabled"}}, "budget_tokens"),
    "an effort": (
        {"output_config": {"effort": "low"}}, "does not support `output_config.effort`"
    ),
    "too long": (said("fox " * 3000), "prompt is too long"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_wrong_requests_are_refused_in_anthropics_form(
    run: Running, changes: dict[str, Any], words: str, stream: bool
) -> None:
    response = run.http.post("/v1/messages", json={**ASK, "stream": stream, **changes})
    body = response.json()
    assert response.status_code == 400, body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
    assert words in body["error"]["message"], body
    assert body["request_id"] == response.headers["request-id"]


def test_an_unknown_model_is_not_found(run: Running) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        run.anthropic.messages.create(**ASK | {"model": "claude"})
    error: Any = caught.value.body
    assert error["error"]["type"] == "not_found_error" and "`claude`" in error["error"]["message"]


def test_counting_refuses_what_an_answer_does_not_need(run: Running) -> None:
    counted = {name: value for name, value in ASK.items() if name != "max_tokens"}
    assert run.http.post("/v1/messages/count_tokens", json=counted).json()["input_tokens"] > 0
    refused = run.http.post("/v1/messages/count_tokens", json=ASK)
    assert refused.status_code == 400 and "`max_tokens`" in refused.json()["error"]["message"]


def test_another_version_of_the_api_is_refused(run: Running) -> None:
    def status(**headers: str) -> int:
        return run.http.post("/v1/messages", json=ASK, headers=headers).status_code

    assert status() == 200
    for version in ("2023-06-01", "2026-10-21"):
        assert status(**{"anthropic-version": version}) == 200
    assert status(**{"anthropic-version": "2023-01-01"}) == 400


def test_both_ways_to_send_a_key(tmp_path: Path) -> None:
    secret = Keys(tmp_path / "keys.json").add("ann")
    with serving(MODELS, tmp_path) as run:
        for fields in ({"api_key": secret}, {"auth_token": secret}):
            client = anthropic.Anthropic(base_url=run.url, max_retries=0, **fields)
            assert client.messages.create(**ASK).content[0].text == "Hello there."
        with pytest.raises(anthropic.AuthenticationError) as caught:
            run.anthropic.messages.create(**ASK)
    error: Any = caught.value.body
    assert error["error"]["type"] == "authentication_error"


def test_limits_have_their_own_errors(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, rate=2, max_body=2000) as run:
        large = run.http.post("/v1/messages", json=ASK | {"system": "x" * 3000})
        assert large.status_code == 413
        assert large.json()["error"]["type"] == "request_too_large"
        assert run.http.get("/v1/messages").json()["error"]["type"] == "invalid_request_error"
        with pytest.raises(anthropic.RateLimitError) as caught:
            run.anthropic.messages.create(**ASK)
    assert caught.value.response.headers["retry-after"]


def test_a_stream_that_takes_too_long_ends_with_an_error_event(tmp_path: Path) -> None:
    slow = model_spec(lambda: ScriptedEngine(["word " * 200], delay_s=0.01))
    with (
        serving({"m": slow}, tmp_path, timeout_s=0.3) as run,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        list(run.anthropic.messages.create(**ASK | {"max_tokens": 300}, stream=True))
    error: Any = caught.value.body
    assert error["type"] == "error" and error["error"]["type"] == "timeout_error"


def test_other_paths_keep_openais_form(run: Running) -> None:
    refused = run.http.post("/v1/chat/completions", json={"model": "m", "messages": []})
    assert "type" not in refused.json() and "request-id" not in refused.headers
