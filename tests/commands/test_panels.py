"""`llmchat --help` has every command in a group, chat first."""

import re

from support.command_line import Run
from typer.main import get_command

from llmchat.cli import app
from llmchat.commands.panels import PANELS


def test_every_command_is_in_one_group() -> None:
    grouped = [name for names in PANELS.values() for name in names]
    assert sorted(grouped) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_help_lists_the_commands_by_group(run: Run) -> None:
    shown = run("--help", COLUMNS="100").stdout
    groups = re.findall(r"─ (\w[\w ]*) ─", shown)
    assert groups == ["Options", *PANELS]
    assert re.search(r"─ Chat ─+╮\n│ chat ", shown)
