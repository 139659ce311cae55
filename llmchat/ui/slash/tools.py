"""Commands for tools: list them, turn them on and off, let them run."""

from collections.abc import Iterable

from llmchat.errors import UsageError
from llmchat.tools import Tool
from llmchat.tools.registry import groups
from llmchat.tools.toolbox import Toolbox, first_line
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState

_ACTIONS = ("on", "off", "allow", "forget")


def _complete(state: ReplState, line: str) -> Iterable[str]:
    action, space, _ = line.partition(" ")
    if not space:
        return _ACTIONS
    known = [name for tool in _box(state).tools for name in (tool.group, tool.name)]
    names = dict.fromkeys([*known, *(groups() if action == "on" else ())])
    return [f"{action} {name}" for name in names]


@command(
    "tools",
    "[on|off|allow|forget NAME]",
    "List the tools of this chat, turn one on or off, let it run without a question, or ask again.",
    complete=_complete,
)
def tools(state: ReplState, rest: str) -> Answer:
    box = _box(state)
    action, _, name = rest.partition(" ")
    if rest:
        _act(box, action, name.strip())
    _print_tools(state, box)
    return None


def _box(state: ReplState) -> Toolbox:
    if state.chat.tools is None:
        raise UsageError("this chat has no tools")
    return state.chat.tools


def _act(box: Toolbox, action: str, name: str) -> None:
    if action not in _ACTIONS or not name:
        raise UsageError(
            f"/tools takes {', '.join(_ACTIONS)} and a name, not `{action} {name}`".rstrip("` ")
            + "`",
            f"groups: {', '.join(groups())}",
        )
    if action == "on":
        box.turn_on(name)
    elif action == "off":
        box.turn_off(name)
    elif action == "allow":
        box.find(name)
        box.permissions.allow(name)
    else:
        for tool in box.find(name):
            box.permissions.withdraw(tool)


def _print_tools(state: ReplState, box: Toolbox) -> None:
    if not box.tools:
        state.print(f"no tools; `/tools on NAME` adds some: {', '.join(groups())}")
    for tool in box.tools:
        state.print(f"{tool.name:20}  {_state_of(box, tool):8}  {first_line(tool.description)}")


def _state_of(box: Toolbox, tool: Tool) -> str:
    if not box.is_on(tool):
        return "off"
    return "allowed" if box.permissions.has(tool) else "asks"
