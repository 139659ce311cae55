"""The tools `memory_search` and `memory_add`."""

from threading import Event
from typing import Any

import pytest

from llmchat.memory.facts import Facts
from llmchat.tools import Tool, ToolError, ToolSettings
from llmchat.tools.registry import tools_of
from llmchat.tools.validation import fault


def call(tool: Tool, **arguments: Any) -> str:
    assert fault(tool, arguments) == ""
    return tool.run(arguments, Event()).text


def test_a_model_searches_and_adds(settings: ToolSettings) -> None:
    search, add = tools_of(["memory"], settings)
    assert call(search, words="home") == "nothing about that is remembered"
    assert call(add, fact="The user lives\nin Graz") == "remembered: The user lives in Graz"
    call(add, fact="The user has a dog")
    assert call(search, words="dog") == "- The user has a dog"
    assert call(search, words="") == "- The user has a dog\n- The user lives in Graz"
    assert len(Facts.of(settings.world).all()) == 2


def test_only_the_search_can_be_allowed_by_a_setting(settings: ToolSettings) -> None:
    search, add = tools_of(["memory"], settings)
    assert (search.read_only, add.read_only) == (True, False)


def test_a_fact_must_be_a_short_text(settings: ToolSettings) -> None:
    _, add = tools_of(["memory"], settings)
    for text in ("", "x" * 501, 5):
        assert fault(add, {"fact": text})
    with pytest.raises(ToolError, match="the fact is empty"):
        add.run({"fact": " "}, Event())
