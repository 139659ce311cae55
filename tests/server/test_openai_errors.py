"""Errors in OpenAI's form, as OpenAI's client raises them."""

import openai
import pytest
from support.serving import Running

HELLO = [{"role": "user", "content": "the quick brown fox"}]
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
TOOL = {"type": "function", "function": {"name": "f"}}
BAD, MISSING = openai.BadRequestError, openai.NotFoundError
# Changes to a valid request; the class, the code and the parameter of the error.
WRONG = {
    "unknown model": ({"model": "none"}, MISSING, "model_not_found", "model"),
    "no message": ({"messages": []}, BAD, None, "messages"),
    "a tool result without a call": (
        {"messages": [{"role": "tool", "content": "hi"}]}, BAD, None, "messages.0.role",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        BAD, None, "messages.0.content.0.type",
    ),
    "temperature": ({"temperature": 2.5}, BAD, None, "temperature"),
    "a number as text": ({"max_tokens": "5"}, BAD, None, "max_tokens"),
    "too long": (
        {"messages": [{"role": "user", "content": "fox " * 400}]},
        BAD, "context_length_exceeded", "messages",
    ),
    "too long an answer": ({"max_tokens": 250}, BAD, "context_length_exceeded", "messages"),
    "a penalty": ({"presence_penalty": 2.5}, BAD, None, "presence_penalty"),
    "a bias": ({"logit_bias": {"5": 101}}, BAD, None, "logit_bias"),
    "a bias of a word": ({"logit_bias": {"fox": 1}}, BAD, None, "logit_bias"),
    "a bias of an unknown token": ({"logit_bias": {"99999999": 1}}, BAD, None, None),
    "a form without its schema": (
        {"response_format": {"type": "json_schema"}}, BAD, None, "response_format",
    ),
    "two forms": (
        {
            "response_format": {"type": "json_object"},
            "extra_body": {"structured_outputs": {"regex": "a"}},
        },
        BAD, None, "structured_outputs",
    ),
    "a tool that nothing offers": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        BAD, None, "tool_choice",
    ),
    "a choice without tools": ({"tool_choice": "required"}, BAD, None, "tool_choice"),
    "a tool twice": ({"tools": [TOOL, TOOL]}, BAD, None, "tools"),
    "an unknown adapter": ({"model": "tiny+none"}, MISSING, "model_not_found", "model"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "code", "param"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_errors_have_openais_form(
    run: Running,
    changes: dict[str, object],
    kind: type,
    code: str | None,
    param: str | None,
    stream: bool,
) -> None:
    asked = {"model": "tiny", "messages": HELLO, "stream": stream} | changes
    with pytest.raises(kind) as caught:
        run.openai.chat.completions.create(**asked)  # type: ignore[call-overload]
    body = caught.value.body
    assert (
        isinstance(body, dict)
        and body["type"] == "invalid_request_error"
        and (body["code"], body["param"]) == (code, param)
    )


def test_lone_surrogates_are_refused(run: Running) -> None:
    content = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    response = run.http.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400 and "surrogate" in response.json()["error"]["message"]


def test_unknown_urls_and_wrong_methods_are_errors_in_openais_form(run: Running) -> None:
    assert run.http.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    assert run.http.get("/v1/chat/completions").status_code == 405
    wrong = run.http.post(
        "/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
    )
    assert wrong.status_code == 400 and wrong.json()["error"]["type"] == "invalid_request_error"
