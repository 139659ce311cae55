"""The time of a translation grows with the conversation, and not with its square."""

import time
from typing import Any

import pytest

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


@pytest.mark.parametrize("items", [calls_of_one_answer, texts_of_one_answer])
def test_eight_times_the_items_take_about_eight_times_as_long(items: Any) -> None:
    def seconds(count: int) -> float:
        request = ResponseRequest.model_validate({"model": "m", "input": items(count)})
        assert isinstance(request.input, list)
        begun = time.thread_time()
        to_chat(request, request.input)
        return time.thread_time() - begun

    few, many = (min(seconds(count) for _ in range(3)) for count in (2000, 16000))
    assert many < 24 * few


def test_calls_and_texts_of_one_answer_are_one_message() -> None:
    items = [*calls_of_one_answer(2)[:3], {"type": "message", "role": "assistant", "content": "a"}]
    items += [{"type": "message", "role": "assistant", "content": "b"}]
    items += calls_of_one_answer(2)[3:]
    request = ResponseRequest.model_validate({"model": "m", "input": items})
    assert isinstance(request.input, list)
    _, answer, *results = to_chat(request, request.input).messages
    assert [call.id for call in answer.tool_calls or ()] == ["c0", "c1"] and len(results) == 2
    assert isinstance(answer.content, list) and [part.text for part in answer.content] == ["a", "b"]
