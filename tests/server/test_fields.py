"""Every field of a request is obeyed, has no effect by its nature, or is refused by its name."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.serving import CHATML, Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.presets import get_format

TEMPLATE = (
    "{% if enable_thinking is defined and not enable_thinking %}[quiet]{% endif %}"
    "{% if mood is defined %}[{{ mood }}]{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
)
TEMPLATED = replace(CHATML, format=get_format("template").with_template(TEMPLATE, {}))
SHOWN = "{% for tool in tools or [] %}{{ tool|tojson }}{% endfor %}"
CALLS = (
    "{% for message in messages %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call|tojson }}{% endfor %}{% endfor %}"
)
TOOLED = replace(
    CHATML, format=get_format("template").with_template(SHOWN + CALLS + "{{ mood }}", {})
)
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {
        "m": model_spec(lambda: ScriptedEngine(["Hello there."]), key="m"),
        "t": model_spec(lambda: ScriptedEngine(["Hello there."]), TEMPLATED, key="t"),
        "tooled": model_spec(lambda: ScriptedEngine(["Hello there."]), TOOLED, key="tooled"),
    }
    with serving(models, tmp_path_factory.mktemp("server")) as running:
        yield running


def sent(run: Running, key: str = "m") -> str:
    engine: Any = next(
        resident.engine for resident in run.state.pool.loaded_models() if resident.key == key
    )
    return str(engine.prompts[-1].text)


@pytest.mark.parametrize(
    "field",
    [
        {"functions": [{"name": "f"}]},
        {"grammar": "root ::= x"},
        {"guided_json": {"type": "object"}},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
        {"audio": {"voice": "alloy"}},
        {"store": True},
        {"temprature": 1},
        {"stop_token_ids": [5]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_unsupported_fields_are_refused_by_name(run: Running, field: dict[str, Any]) -> None:
    for path, ask in (
        ("/v1/chat/completions", ASK),
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
    ):
        refused = run.http.post(path, json={**ask, **field})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == next(
            iter(field)
        ), refused.text
        assert next(iter(field)) in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "field",
    [
        {"parallel_tool_calls": True},
        {"modalities": ["text"]},
        {"prediction": {"type": "content", "content": "Hello"}},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"functions": None},
        {"grammar": None},
        {"user": {"id": 5}},
        {"user": "ann"},
        {"max_tokens": -1},
        {"max_tokens": 5.0},
        {"n": 1.0},
        {"seed": 7.0},
        {"top_k": 40.0},
        {"keep_alive": "5m"},
        {"keep_alive": "1h30m"},
        {"keep_alive": "-1"},
        {"keep_alive": -5},
        {"stop": [f"stop {number}" for number in range(30)]},
    ],
    ids=str,
)
def test_values_that_other_servers_accept_are_accepted(run: Running, field: dict[str, Any]) -> None:
    for path, ask in (
        ("/v1/chat/completions", ASK),
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
    ):
        answer = run.http.post(path, json={**ask, **field})
        assert answer.status_code == 200, answer.text


def test_keep_alive_accepts_durations(run: Running) -> None:
    for given, expected in (
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("90", 90.0),
        ("-1s", math.inf),
        (7.5, 7.5),
    ):
        assert (
            run.http.post("/v1/chat/completions", json={**ASK, "keep_alive": given}).status_code
            == 200
        )
        model = next(one for one in run.state.pool.loaded_models() if one.key == "m")
        assert model.expires_at() - model.last_used == pytest.approx(expected)
    for wrong in ("5 minutes", "", "m", "1e9", "9" * 500):
        refused = run.http.post("/v1/chat/completions", json={**ASK, "keep_alive": wrong})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "keep_alive"


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        (
            [{"role": "system", "content": "Say hi."}],
            "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Ho"}],
            "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n"
            "<|im_start|>user\nHo<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "user", "content": "b", "name": "ann"},
            ],
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"
            "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
    ids=["system alone", "assistant first", "a refusal"],
)
def test_message_orders_and_parts_that_other_servers_accept(
    run: Running, messages: list[dict[str, Any]], written: str
) -> None:
    answer = run.http.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert answer.status_code == 200 and sent(run) == written


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "x"])
def test_parts_other_than_text_are_refused_by_type(run: Running, kind: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:"}}]
    error = run.http.post(
        "/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": content}]},
    ).json()["error"]
    assert error["param"] == "messages.0.content.1.type"
    assert error["message"] == f"`{kind}` parts are not supported; this server only reads text"


def test_unknown_fields_of_messages_are_refused_by_name(run: Running) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi", "weight": 0}]}
    assert (
        run.http.post("/v1/chat/completions", json=asked).json()["error"]["param"]
        == "messages.0.weight"
    )


def test_template_values_reach_the_template(run: Running) -> None:
    def prompt(**fields: Any) -> str:
        answer = run.http.post("/v1/chat/completions", json={**ASK, "model": "t", **fields})
        assert answer.status_code == 200, answer.text
        return sent(run, "t")

    assert prompt() == "<user>hi"
    assert prompt(chat_template_kwargs={"enable_thinking": False}) == "[quiet]<user>hi"
    assert (
        prompt(chat_template_kwargs={"mood": "glad"}, reasoning_effort="none")
        == "[quiet][glad]<user>hi"
    )
    assert prompt(reasoning_effort="high") == "<user>hi"
    for name in ("messages", "tools", "add_generation_prompt", "bos_token", "role", "nothing", ""):
        refused = run.http.post(
            "/v1/chat/completions", json={**ASK, "model": "t", "chat_template_kwargs": {name: "x"}}
        )
        assert (
            refused.status_code == 400
            and refused.json()["error"]["param"] == "chat_template_kwargs"
        ), name


def test_consecutive_messages_of_one_role_are_joined(run: Running, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": word} for word in ("a", "b", "c")] + [
        {"role": "system", "content": "s"}
    ]
    run.http.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert sent(run).startswith(
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na\n\nb\n\nc<|im_end|>"
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_field_with_an_empty_name_is_refused(run: Running, path: str) -> None:
    ask = ASK if path.endswith("chat/completions") else {"model": "m", "prompt": "hi"}
    for extra in ({"": 1}, {"": 1, "grammar": "x"}, {"stream_options": {"": 1}, "stream": True}):
        assert run.http.post(path, json={**ask, **extra}).status_code == 400, extra


@pytest.mark.parametrize("prompt", [[], [[]], [1, 2], [[1]], [""], ""], ids=str)
def test_an_empty_list_of_prompts_is_refused(run: Running, prompt: Any) -> None:
    status = 200 if prompt in ("", [""]) else 400
    assert (
        run.http.post("/v1/completions", json={"model": "m", "prompt": prompt}).status_code
        == status
    )


def nested(opening: str, closing: str, levels: int = 400) -> str:
    return opening * levels + "1" + closing * levels


TOOL = '"tools": [{"type": "function", "function": {"name": "f", %s}}]'
CALL = (
    '"messages": [{"role": "user", "content": "hi"}, '
    '{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": %s}}]}, '
    '{"role": "tool", "content": "1"}]'
)


@pytest.mark.parametrize(
    "field",
    [
        '"chat_template_kwargs": {"mood": ' + nested("[", "]") + "}",
        '"chat_template_kwargs": {"mood": ' + nested('{"a":', "}") + "}",
        TOOL % ('"parameters": {"a": ' + nested("[", "]") + "}"),
        TOOL % '"more": "\\ud800"',
        TOOL % '"more": {"\\ud800": 1}',
        CALL % json.dumps(nested("[", "]")),
        CALL % json.dumps(nested('{"a":', "}", 30_000)),
        CALL % json.dumps('"\\ud800"'),
        CALL % json.dumps("9" * 5000),
    ],
    ids=[
        "lists",
        "objects",
        "parameters",
        "half a character",
        "half a character in a name",
        "arguments",
        "deep arguments",
        "half there",
        "digits",
    ],
)
def test_values_that_no_template_can_use_are_refused(run: Running, field: str) -> None:
    body = '{"model": "tooled", "messages": [{"role": "user", "content": "hi"}], ' + field + "}"
    answer = run.http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text[:300]
