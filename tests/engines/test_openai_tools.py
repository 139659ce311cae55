"""Tools on a server with OpenAI's API: it is offered them, and its calls arrive as calls."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from support.openai_server import Asked, Told, json_of, said, serving, sse
from support.tools import SmallTool

from llmchat.calls import Call, ToolRequest
from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines import Chunk, Sampling
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.server_models import find_served
from llmchat.engines.openai_api.tools import CallCollector
from llmchat.errors import UsageError
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.prompt import Prompt
from llmchat.tools.permission import Permissions
from llmchat.tools.toolbox import Toolbox, definition

TOOLS = ToolRequest((definition(SmallTool()),))


def delta(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}


def piece(index: int, arguments: str, **named: str) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": named["name"]} if "name" in named else {})
    return {"index": index, "function": function} | ({"id": named["id"]} if "id" in named else {})


CALLED = (
    delta(piece(0, '{"te', id="c1", name="echo")),
    delta(piece(0, 'xt": "hi"}')),
    said("", "tool_calls"),
)


@contextmanager
def engine_of(*answers: Any, owner: str = "vllm") -> Iterator[tuple[OpenAIEngine, list[Asked]]]:
    """An engine whose server gives these answers in turn, each a list of events."""
    waiting = list(answers)

    def app(asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return json_of({"data": [{"id": "m", "owned_by": owner, "max_model_len": 4096}]})
        if asked.path.endswith("completions"):
            return Told(sse(*waiting.pop(0)))
        return json_of({"error": {"message": "no such path"}}, 404)

    with serving(app) as (url, asked):
        connection = Connection(url, wait=lambda seconds: None)
        yield OpenAIEngine(connection, find_served(connection, (), only=True), chat=True), asked


def stream(engine: OpenAIEngine, tools: ToolRequest) -> list[Any]:
    prompt = Prompt("", (Message("user", "say hi"),), tools=tools)
    with closing(engine.stream(prompt, Sampling())) as events:
        return list(events)


def test_pieces_of_a_call_become_one_call() -> None:
    with engine_of(CALLED) as (engine, asked):
        *chunks, finish = stream(engine, TOOLS)
    calls = [call for chunk in chunks if isinstance(chunk, Chunk) for call in chunk.calls]
    assert calls == [Call("c1", "echo", {"text": "hi"})]
    assert finish.reason == "stop"
    assert asked[-1].body["tools"] == list(TOOLS.tools)
    assert "tool_choice" not in asked[-1].body


def test_the_choice_is_sent() -> None:
    with engine_of(CALLED, CALLED, CALLED) as (engine, asked):
        stream(engine, replace(TOOLS, choice="required", parallel=False))
        assert asked[-1].body["tool_choice"] == "required"
        assert asked[-1].body["parallel_tool_calls"] is False
        stream(engine, replace(TOOLS, name="echo"))
        named = {"type": "function", "function": {"name": "echo"}}
        assert asked[-1].body["tool_choice"] == named
        stream(engine, replace(TOOLS, choice="none"))
        assert "tools" not in asked[-1].body


def test_a_server_that_ignores_the_choice_is_not_asked_for_it() -> None:
    with engine_of(owner="library") as (engine, _), pytest.raises(UsageError, match="Ollama"):
        stream(engine, replace(TOOLS, choice="required"))


def test_a_chat_runs_the_calls_of_a_server() -> None:
    tool = SmallTool()
    with engine_of(CALLED, [said("It said hi.", "stop")]) as (engine, asked):
        preset = replace(find("smollm2"), format=get_format("chatml"), engine="openai")
        box = Toolbox([tool], Permissions(None, ["echo"]))
        talk = Chat(preset, engine, History(None), Sampling(), tools=box)
        list(talk.send("say hi"))
    assert tool.calls == [{"text": "hi"}]
    assert talk.conversation.messages[-1].text == "It said hi."
    call, result = asked[-1].body["messages"][-2:]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"text": "hi"}
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "hi", "c1")


@pytest.mark.parametrize(
    ("pieces", "names", "broken"),
    [
        ([piece(1, "{}", name="b"), piece(0, "{}", name="a")], ["a", "b"], ""),
        ([{"function": {"name": "a", "arguments": {"x": 1}}}], ["a"], ""),
        ([{"function": {"name": "a"}}, {"function": {"name": "b"}}], ["a", "b"], ""),
        ([piece(0, '{"x": ', name="a")], [], 'a({"x": )'),
        ([piece(0, "[1]", name="a")], [], "a([1])"),
        (["nonsense", None, 3], [], ""),
    ],
)
def test_calls_of_all_kinds_are_read_and_none_is_lost(
    pieces: list[Any], names: list[str], broken: str
) -> None:
    collector = CallCollector()
    collector.feed(pieces)
    calls, text = collector.calls()
    assert ([call.name for call in calls], text) == (names, broken)
