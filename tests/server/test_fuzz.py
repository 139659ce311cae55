"""Random requests from the API's own schema: none of them causes an internal error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from support.serving import Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine

BOUNDED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(
        {"m": model_spec(lambda: ScriptedEngine(["Hello there."]))},
        tmp_path_factory.mktemp("server"),
        queue=1000,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(run: Running) -> httpx2.Client:
    return run.http


@pytest.fixture(scope="module")
def api(run: Running) -> Any:
    return schemathesis.openapi.from_url(f"{run.url}/openapi.json")


OPERATIONS = (
    "GET /health", "GET /metrics", "GET /v1/models", "GET /v1/models/{model}",
    "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings", "POST /v1/rerank",
    "POST /v1/responses", "GET /v1/responses/{id}", "DELETE /v1/responses/{id}",
    "GET /v1/responses/{id}/input_items",
    "POST /v1/messages", "POST /v1/messages/count_tokens",
    "GET /api/ps", "POST /api/stop", "GET /api/models", "GET /api/settings",
)  # fmt: skip


def test_every_operation_is_fuzzed(api: Any) -> None:
    assert {operation.ok().label for operation in api.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_causes_an_internal_error(api: Any, label: str) -> None:
    operation = next(found.ok() for found in api.get_all_operations() if found.ok().label == label)

    # Schemas with many kinds of items make large requests, which take long to generate.
    large = "/v1/responses" in label or "/v1/messages" in label
    examples = 8 if large else BOUNDED.max_examples

    @given(operation.as_strategy())
    @settings(BOUNDED, max_examples=examples)
    def tried(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            # A name that is made up would end every request at its first step.
            case.body["model"] = "m"
        case.call_and_validate(checks=[not_a_server_error], timeout=20)

    tried()


PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "refusal", "image_url", "", "x" * 300])},
    optional={
        "text": st.one_of(st.none(), st.text(max_size=3)),
        "refusal": st.text(max_size=3),
        "image_url": st.just({"url": "x"}),
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"])},
    optional={
        "content": st.one_of(st.none(), st.text(max_size=20), st.lists(PART, max_size=2)),
        "tool_calls": st.lists(
            st.builds(
                lambda text: {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "f", "arguments": text},
                },
                st.text(max_size=5),
            ),
            max_size=2,
        ),
        "tool_call_id": st.text(max_size=3),
    },
)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, max_size=4)},
    optional={
        "stream": st.booleans(),
        "stop": st.one_of(st.text(max_size=3), st.lists(st.text(max_size=3), max_size=3)),
        "n": st.integers(0, 3),
        "seed": st.integers(-(2**64), 2**64),
        "temperature": st.one_of(st.floats(-1, 3), st.just(0)),
        "top_p": st.floats(0, 1),
        "max_tokens": st.one_of(st.integers(-2, 10), st.floats(0, 10), st.just(2**40)),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 30),
        "keep_alive": st.one_of(
            st.floats(-2, 10), st.text(alphabet="0123456789.-msh ", max_size=8)
        ),
        "truncation": st.sampled_from(["auto", "disabled", "never"]),
        "tools": st.lists(st.just({"type": "function", "function": {"name": "f"}}), max_size=1),
        "stream_options": st.just({"include_usage": True}),
        "chat_template_kwargs": st.dictionaries(
            st.text(max_size=8),
            st.one_of(st.none(), st.integers(), st.text(max_size=5)),
            max_size=2,
        ),
        "reasoning_effort": st.text(max_size=6),
        "user": st.one_of(
            st.none(),
            st.text(max_size=5),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        ),
        "parallel_tool_calls": st.booleans(),
        "modalities": st.lists(st.sampled_from(["text", "audio"]), max_size=2),
        "prediction": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=1),
        "unheard_of": st.one_of(st.none(), st.integers()),
    },
)


@given(FIELDS)
@settings(BOUNDED, max_examples=150)
def test_almost_valid_chats_cause_no_internal_error(
    http: httpx2.Client, body: dict[str, Any]
) -> None:
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code in (200, 400, 429), (response.status_code, response.text)
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    elif body.get("stream"):
        assert response.text.endswith("data: [DONE]\n\n") and '"error"' not in response.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"NaN",
        b'"x"',
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"model": "m", "prompt": ' + b"9" * 5000 + b"}",
        b'{"model": "m", "prompt": "x", "temperature": NaN}',
        b'{"model": "m", "prompt": "\\u0000"}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_random_bytes_cause_no_internal_error(run: Running, content: bytes) -> None:
    response = run.http.post(
        "/v1/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../../etc/passwd",
        "/etc",
        "m\x00",
        "x" * 5000,
        "m+",
        "+",
        "m+../x",
        "~",
        ".",
        "a/b/c",
        "😀",
        "m:0.5",
    ],
)
def test_no_model_name_opens_anything(run: Running, name: str) -> None:
    response = run.http.post("/v1/completions", json={"model": name, "prompt": "x"})
    assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"


def test_paths_of_the_page_stay_inside_it(run: Running, tmp_path: Path) -> None:
    for path in (
        "/../../../etc/passwd",
        "/page/../../keys.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/%00",
    ):
        assert run.http.get(path).status_code in (400, 403, 404), path
