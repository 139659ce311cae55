"""The role of a batch: it words each prompt."""

from pathlib import Path

from llmchat.roles import Role, chosen_role


def role_of_batch(spec: str | None, own: Path) -> Role | None:
    """The role that an option names; a line may give the values that it lacks. own: the folder of
    the user's roles.

    Raises UsageError as `check_role` does.
    """
    role = chosen_role(spec, own, complete=False)
    if role:
        check_role(role)
    return role


def check_role(role: Role) -> None:
    """Raise UsageError for a role with keys that a batch does not support."""
    role.check_lacks(
        ("turns", "tools", "docs"),
        "a batch",
        "a batch asks one question per line; use this role with `llmchat chat`",
    )
