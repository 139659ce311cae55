"""Roles: saved prompts and options, one TOML file each.

`find_role` reads a role by its name. `Role.options` are the options that it sets, which flags
override; `Role.ask` and `Role.follow_ups` are the questions that are sent.
"""

from llmchat.roles.load import (
    OFF,
    broken,
    chosen_role,
    find_role,
    known_names,
    names,
    path_of,
    read_role,
)
from llmchat.roles.types import Role, kept_options, settings_with_role, with_role

__all__ = [
    "OFF",
    "Role",
    "broken",
    "chosen_role",
    "find_role",
    "kept_options",
    "known_names",
    "names",
    "path_of",
    "read_role",
    "settings_with_role",
    "with_role",
]
