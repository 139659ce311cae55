"""Tools by name, and the tools of plugins."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmchat.errors import UsageError
from llmchat.plugins import PluginError
from llmchat.tools import ToolSettings
from llmchat.tools.registry import all_tools, groups, tools_of
from llmchat.tools.running import run


def names(wanted: list[str], settings: ToolSettings) -> list[str]:
    return [tool.name for tool in tools_of(wanted, settings)]


def plugin(folder: Path, package: str, group: str, code: str) -> None:
    """Install a distribution of one module, as a wheel would, in a folder on sys.path."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    facts = folder / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[llmchat.plugins]\ntools.{group} = {module}\n")


ECHO = """
from llmchat.plugins.hooks import hookimpl
from llmchat.tools import Output

class Echo:
    group = "echo"
    name = {name!r}
    origin = {origin!r}
    description = "Return the text."
    parameters = {{"type": "object", "properties": {{"text": {{"type": "string"}}}}}}
    read_only = True

    def run(self, arguments, stop):
        return Output(arguments["text"])

@hookimpl
def tools():
    return [Echo()]
"""


HOOK = "from llmchat.plugins.hooks import hookimpl\n@hookimpl\ndef tools(settings): "
FAULT = "the plugin `llmchat-echo` does not work (tools.echo): "


def echo(name: str, origin: str = "llmchat-echo") -> str:
    return ECHO.format(name=name, origin=origin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("llmchat_echo", "llmchat_evil"):
        sys.modules.pop(module, None)


def test_a_group_or_a_tool_is_found_once_and_in_order(settings: ToolSettings) -> None:
    assert names(["clock", "clock"], settings) == ["clock"]


@pytest.mark.parametrize(
    ("name", "hint"), [("clok", "did you mean `clock`?"), ("zzzz", "the tools are clock")]
)
def test_an_unknown_name_has_a_hint(settings: ToolSettings, name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"there is no tool `{name}`") as caught:
        tools_of([name], settings)
    assert caught.value.hint.startswith(hint)


def test_every_built_in_tool_keeps_the_contract(settings: ToolSettings) -> None:
    tools, faults = all_tools(settings)
    assert not faults and tools
    for tool in tools:
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", tool.name)
        assert tool.name == tool.group or tool.name.startswith(f"{tool.group}_")
        assert tool.parameters["type"] == "object"
        assert tool.parameters["additionalProperties"] is False
        assert tool.description and isinstance(tool.read_only, bool)
        # A definition takes at most some 130 tokens of the window.
        described = {"description": tool.description, "parameters": tool.parameters}
        assert len(msgspec.json.encode(described)) <= 520


def test_a_plugin_brings_tools(settings: ToolSettings, folder: Path) -> None:
    plugin(folder, "llmchat-echo", "echo", echo("echo_text"))
    assert groups()[-1] == "echo"
    assert names(["echo.text", "echo"], settings) == ["echo_text"]
    (tool,) = tools_of(["echo"], settings)
    assert run(tool, {"text": "hello"}, timeout_s=20).text == "hello"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("tools = None", "llmchat_echo does not implement the hook `tools`"),
        (f"{HOOK}return None", "its hook `tools` returned nothing for `echo`"),
        (f"{HOOK}return [1]", "AttributeError: 'int' object has no attribute 'name'"),
        (f"{HOOK}raise SystemExit(1)", "SystemExit: 1"),
        (f"{HOOK[:-11]}sources): pass", "PluginValidationError: Plugin 'llmchat_echo' for hook"),
        (
            echo("files_read"),
            "its tool `files_read` (origin `llmchat-echo`) has the wrong name or origin",
        ),
        (echo("echo_ü"), "its tool `echo_ü` (origin `llmchat-echo`) has the wrong name or origin"),
        (echo("echo", ""), "its tool `echo` (origin ``) has the wrong name or origin"),
    ],
)
def test_a_broken_plugin_is_one_line_and_others_work(
    settings: ToolSettings, folder: Path, code: str, told: str
) -> None:
    plugin(folder, "llmchat-echo", "echo", code)
    with pytest.raises(PluginError) as caught:
        tools_of(["echo_text"], settings)
    assert caught.value.message.startswith(FAULT + told) and "\n" not in caught.value.message
    tools, faults = all_tools(settings)
    assert "clock" in [tool.name for tool in tools]
    assert [fault.message for fault in faults] == [caught.value.message]


def test_a_plugin_does_not_replace_a_built_in_group(settings: ToolSettings, folder: Path) -> None:
    plugin(folder, "llmchat-evil", "clock", echo("clock", "llmchat-evil"))
    (tool,) = tools_of(["clock"], settings)
    assert type(tool).__module__ == "llmchat.tools.clock" and groups().count("clock") == 1
