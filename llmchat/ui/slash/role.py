"""The command for the role of a chat."""

from collections.abc import Iterable

from llmchat.roles import OFF, find_role, names
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState


def _complete(state: ReplState, word: str) -> Iterable[str | tuple[str, str]]:
    known = names(state.world.own_roles)
    return [*((name, role.about) for name, role in known.items()), OFF]


@command(
    "role",
    "[NAME [KEY=VALUE]|off]",
    "Use a role from now on, stop using it, or list the roles.",
    complete=_complete,
)
def role(state: ReplState, rest: str) -> Answer:
    if rest == OFF:
        state.take_role(None)
    elif rest:
        state.take_role(find_role(rest, state.world.own_roles))
    current = state.role
    state.print(f"role: {current.spec}" if current else "no role")
    if not rest:
        for name, known in names(state.world.own_roles).items():
            state.print(f"{name:14}  {known.about}")
        state.print("`/role NAME` uses one; `llmchat roles edit NAME` writes one")
    return None
