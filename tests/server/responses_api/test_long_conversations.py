"""The time of a translation grows with the conversation, and not with its square."""

from typing import Any

import pytest

from llmchat.server.api import ChatMessage
from llmchat.server.responses_api import translation
from llmchat.server.responses_api.schema import ResponseRequest
from llmchat.server.responses_api.translation import to_chat


def calls_of_one_answer(count: int) -> list[dict[str, Any]]:
    calls = [
        {"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"}
        for n in range(count)
    ]
    outputs = [
        {"type": "function_call_output", "call_id": f"c{n}", "output": "ok"} for n in range(count)
    ]
    return [{"type": "message", "role": "user", "content": "hi"}, *calls, *outputs]


def texts_of_one_answer(count: int) -> list[dict[str, Any]]:
    text = {"type": "message", "role": "assistant", "content": "a"}
    user, call, *output = calls_of_one_answer(1)
    return [user, call, *[text] * count, *output]


@pytest.mark.parametrize(
    ("items", "grows"), [(calls_of_one_answer, "tool_calls"), (texts_of_one_answer, "content")]
)
def test_the_growing_list_of_an_answer_is_never_copied(items: Any, grows: str) -> None:
    """A copy for each item would make the time of a translation quadratic."""
    request = ResponseRequest.model_validate({"model": "m", "input": items(200)})
    assert isinstance(request.input, list)
    messages: list[ChatMessage] = []
    seen = []
    for item in request.input:
        translation._add(messages, item)
        if messages[-1].role == "assistant" and getattr(messages[-1], grows):
            seen.append(getattr(messages[-1], grows))
    assert len(seen) == len(seen[0]) == 200 and all(one is seen[0] for one in seen)


def test_calls_and_texts_of_one_answer_are_one_message() -> None:
    items = [*calls_of_one_answer(2)[:3], {"type": "message", "role": "assistant", "content": "a"}]
    items += [{"type": "message", "role": "assistant", "content": "b"}]
    items += calls_of_one_answer(2)[3:]
    request = ResponseRequest.model_validate({"model": "m", "input": items})
    assert isinstance(request.input, list)
    _, answer, *results = to_chat(request, request.input).messages
    assert [call.id for call in answer.tool_calls or ()] == ["c0", "c1"] and len(results) == 2
    assert isinstance(answer.content, list) and [part.text for part in answer.content] == ["a", "b"]
