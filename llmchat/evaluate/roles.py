"""The role that evaluated models are asked in: it words each question, and sets their options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.conversation import Conversation
from llmchat.evaluate.tasks import Item
from llmchat.roles import Role, chosen_role


def role_of_models(spec: str | None, own: Path) -> Role | None:
    """The role that an option names. own: the folder of the user's roles.

    Raises UsageError for a role with keys that single questions do not support.
    """
    role = chosen_role(spec, own)
    if role:
        role.check_lacks(
            ("turns", "tools", "docs"),
            "an evaluation",
            "an evaluation asks single questions; use this role with `llmchat chat`",
        )
    return role


def options_of(role: Role | None) -> dict[str, Any]:
    """The options that a role sets for any model: not its own model with its format."""
    sets = role.options() if role else {}
    return {name: value for name, value in sets.items() if name not in ("model", "format")}


def items_in_role(items: Sequence[Item], role: Role | None) -> list[Item]:
    """The items with the role's prompt around their questions; texts stay as they are."""
    if role is None:
        return list(items)
    return [
        replace(item, messages=role.ask_last(Conversation(item.messages)).messages)
        for item in items
    ]
