"""Whose a file is. On Windows files have no user number: there, nothing is ours by number."""

import os


def own_uid() -> int | None:
    """The number of this user; None where users have none."""
    return os.getuid() if hasattr(os, "getuid") else None


def is_ours(facts: os.stat_result) -> bool:
    """Whether a file belongs to this user; True where files have no user."""
    return own_uid() in (None, facts.st_uid)
