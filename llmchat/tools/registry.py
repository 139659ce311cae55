"""Find tools by name: the built-in groups, and those of installed plugins.

A plugin is a distribution with an entry point in the group `llmchat.tools`: its name is the name of
a group of tools, its object a function from ToolSettings to a list of tools. Tools are called as
their group, or begin with it: `files_read`. So a plugin cannot replace a built-in tool.
"""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from llmchat.errors import LlmchatError, UsageError, did_you_mean, first_line
from llmchat.tools import Group, Tool, ToolSettings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGINS = "llmchat.tools"
# A group, and the module whose function `tools` makes its tools.
_BUILT_IN = {
    "clock": "llmchat.tools.clock",
    "calculator": "llmchat.tools.calculator",
    "files": "llmchat.tools.files",
    "memory": "llmchat.tools.memory",
    "python": "llmchat.tools.python",
    "web": "llmchat.tools.web",
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def tools_of(names: Iterable[str], settings: ToolSettings) -> list[Tool]:
    """The tools of groups (`files`) and single tools (`files.read`, `files_read`), each once.

    Raises UsageError for an unknown name, and for a plugin that does not work.
    """
    found: dict[str, Tool] = {}
    for name in names:
        for tool in _tools_named(name, settings):
            found.setdefault(tool.name, tool)
    return list(found.values())


def all_tools(settings: ToolSettings) -> tuple[list[Tool], list[LlmchatError]]:
    """Every tool that works here, and why the other groups do not."""
    tools: list[Tool] = []
    faults: list[LlmchatError] = []
    for group in groups():
        try:
            tools += _made(group, settings)
        except LlmchatError as error:
            faults.append(error)
    return tools, faults


def groups() -> list[str]:
    """The names of all groups: built in first, then those of plugins."""
    return [*_BUILT_IN, *sorted(_plugins())]


def _tools_named(name: str, settings: ToolSettings) -> list[Tool]:
    group = _group_of(name)
    tools = _made(group, settings) if group else []
    wanted = name.replace(".", "_")
    chosen = tools if name == group else [tool for tool in tools if tool.name == wanted]
    return chosen or _unknown(name, settings)


def _unknown(name: str, settings: ToolSettings) -> list[Tool]:
    names = [*groups(), *(tool.name for tool in all_tools(settings)[0])]
    hint = did_you_mean(name, list(dict.fromkeys(names)))
    raise UsageError(f"there is no tool `{name}`", hint or f"the tools are {', '.join(groups())}")


def _group_of(name: str) -> str:
    """The group that a tool's name begins with; plugins are read only if none is built in."""
    for known in (_BUILT_IN, _plugins):
        fitting = [
            group for group in (known() if callable(known) else known) if _is_of(name, group)
        ]
        if fitting:
            return max(fitting, key=len)
    return ""


def _is_of(name: str, group: str) -> bool:
    return name == group or name.startswith((f"{group}_", f"{group}."))


def _made(group: str, settings: ToolSettings) -> list[Tool]:
    if group not in _BUILT_IN:
        return _of_plugin(_plugins()[group], settings)
    make: Group = import_module(_BUILT_IN[group]).tools
    return make(settings)


def _plugins() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group=PLUGINS)}
    return {name: entry for name, entry in found.items() if name not in _BUILT_IN}


def _of_plugin(entry: "EntryPoint", settings: ToolSettings) -> list[Tool]:
    """Its tools. Whatever a plugin raises becomes one line."""
    origin = f"it comes from the package {entry.dist.name}" if entry.dist else ""
    try:
        make: Group = entry.load()
        tools = make(settings)
        wrong = next((tool for tool in tools if not _fits(tool, entry)), None)
    except LlmchatError:
        raise
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"the plugin `{entry.name}` does not work: {cause}", origin) from error
    if wrong:
        raise UsageError(
            f"the plugin `{entry.name}` has a tool `{wrong.name}` of origin `{wrong.origin}`",
            origin,
        )
    return tools


def _fits(tool: Tool, entry: "EntryPoint") -> bool:
    """Whether a tool is named after its group, and permission for it is bound to its package."""
    named = tool.name == entry.name or tool.name.startswith(f"{entry.name}_")
    package = entry.dist.name if entry.dist else ""
    return named and tool.origin == package and bool(_NAME.fullmatch(tool.name))
