"""The groups of `llmchat --help` and the order of the commands in them."""

from collections.abc import Mapping
from typing import Any

PANELS = {
    "Chat": ("chat", "batch", "sessions", "roles", "index", "memory", "prompt"),
    "Models": (
        "presets", "pull", "ls", "show", "doctor", "verify", "rm", "convert", "merge", "push",
    ),
    "Servers": ("serve", "ps", "stop", "connect", "deploy"),
    "Training and measurement": ("data", "finetune", "evaluate", "compare", "bench", "plot"),
    "Settings": ("config", "plugins"),
}  # fmt: skip


def arranged(commands: Mapping[str, Any]) -> dict[str, Any]:
    """The commands in the order of PANELS, each with its panel."""
    ordered = {}
    for panel, names in PANELS.items():
        for name in names:
            ordered[name] = commands[name]
            ordered[name].rich_help_panel = panel
    return {**ordered, **commands}
