"""Find tools by name: the built-in groups, and those of installed plugins.

A plugin's entry point `tools.GROUP` names a group. Tools are called as their group, or begin with
it: `files_read`. So a plugin cannot replace a built-in tool.
"""

import re
from collections.abc import Iterable
from importlib import import_module

from llmchat import plugins
from llmchat.errors import LlmchatError, UsageError, did_you_mean
from llmchat.plugins import Offer
from llmchat.tools import Group, Tool, ToolSettings

# A group, and the module whose function `tools` makes its tools.
BUILT_IN = {
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
    return [*BUILT_IN, *_plugins()]


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
    for known in (BUILT_IN, _plugins):
        fitting = [
            group for group in (known() if callable(known) else known) if _is_of(name, group)
        ]
        if fitting:
            return max(fitting, key=len)
    return ""


def _is_of(name: str, group: str) -> bool:
    return name == group or name.startswith((f"{group}_", f"{group}."))


def _made(group: str, settings: ToolSettings) -> list[Tool]:
    if group not in BUILT_IN:
        return _of_plugin(_plugins()[group], settings)
    make: Group = import_module(BUILT_IN[group]).tools
    return make(settings)


def _plugins() -> dict[str, Offer]:
    return {one.name: one for one in plugins.offers("tools") if one.name not in BUILT_IN}


def _of_plugin(offer: Offer, settings: ToolSettings) -> list[Tool]:
    """Its tools. Whatever a plugin raises becomes one line."""
    tools: list[Tool] = plugins.make(offer, settings=settings)
    with plugins.faults(offer):
        wrong = next((tool for tool in tools if not _fits(tool, offer)), None)
    if wrong:
        raise plugins.fault(
            offer,
            f"its tool `{wrong.name}` (origin `{wrong.origin}`) has the wrong name or origin",
            f"name it `{offer.name}` or `{offer.name}_…`, with the origin `{offer.package}`",
        )
    return tools


def _fits(tool: Tool, offer: Offer) -> bool:
    """Whether a tool is named after its group, and permission for it is bound to its package."""
    named = tool.name == offer.name or tool.name.startswith(f"{offer.name}_")
    return named and tool.origin == offer.package and bool(_NAME.fullmatch(tool.name))
