"""What a server says of its tools becomes what a model can be offered."""

from functools import cache
from typing import Any

import pytest
from support.mcp_server import STRICT
from support.mcp_server import Server as ScriptedServer

from llmchat.calls import ToolRequest
from llmchat.engines.guide.checking import check
from llmchat.structure import Structure
from llmchat.tool_syntax import Dialect
from llmchat.tool_syntax.grammar import answer_grammar
from llmchat.tool_syntax.table import DIALECTS, PLAIN
from llmchat.tools.mcp import Server
from llmchat.tools.mcp.definitions import known_parts, listing, tool_name
from llmchat.tools.mcp.enforceable import enforceable


@cache
def offered_by(behaviour: str) -> list[dict[str, Any]]:
    """The tools of a server, as a model is offered them."""
    server = ScriptedServer(behaviour, "")
    listed = getattr(server, f"list_{behaviour}", lambda cursor: {"tools": server.tools})(None)
    entries = [known_parts(entry) for entry in listed["tools"]]
    tools = listing(Server(), [entry for entry in entries if entry]).tools
    return [
        {"name": tool.remote, "description": tool.description, "parameters": tool.parameters}
        for tool in tools
    ]


@pytest.mark.parametrize("dialect", (*DIALECTS, PLAIN), ids=lambda dialect: dialect.name)
def test_a_grammar_of_every_dialect_takes_the_tools_of_a_hostile_server(dialect: Dialect) -> None:
    tools = offered_by("wrong") + offered_by("plain")
    assert len(tools) == 6
    definitions = tuple({"type": "function", "function": tool} for tool in tools)
    check(Structure("grammar", answer_grammar(dialect, ToolRequest(definitions), None)))


def test_a_schema_loses_only_what_no_grammar_enforces() -> None:
    assert enforceable(STRICT) == {
        "type": "object",
        "properties": {
            "names": {"type": "array", "items": {"type": "string"}},
            "link": {"type": "string"},
            "kind": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
            "more": {"type": "object"},
        },
        "required": ["names"],
        "additionalProperties": False,
    }
    patterns = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{2}$"}}}
    assert enforceable(patterns) == patterns
    opened = {"type": "object", "patternProperties": {"(?=a)": {}}, "additionalProperties": False}
    assert enforceable(opened) == {"type": "object"}


def test_a_name_does_not_repeat_the_servers() -> None:
    assert tool_name("git", "git_status", ()) == "git_status"
    assert tool_name("fetch", "fetch", ()) == "fetch"
    assert tool_name("git", "gitter", ()) == "git_gitter"
