"""What people type, as the command that it means."""

import pytest
from typer.main import get_command

from llmchat.cli import app
from llmchat.commands.aliases import resolve_aliases

COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ([], ["chat"]),
        (["-m", "smollm2"], ["chat", "-m", "smollm2"]),
        (["hi"], ["chat", "hi"]),
        (
            ["What is the capital of France?", "--json"],
            ["chat", "What is the capital of France?", "--json"],
        ),
        (["法国的首都是哪里？"], ["chat", "法国的首都是哪里？"]),
        (["-h"], ["-h"]),
        (["help"], ["--help"]),
        (["help", "pull"], ["pull", "--help"]),
        (["help", "list"], ["ls", "--help"]),
        (["-V"], ["--version"]),
        (["--version"], ["--version"]),
        (["list", "--json"], ["ls", "--json"]),
        (["models"], ["ls"]),
        (["run", "smollm2"], ["chat", "--model", "smollm2"]),
        (["run", "smollm2", "Hello"], ["chat", "--model", "smollm2", "Hello"]),
        (["run", "--json", "Hello"], ["chat", "--json", "Hello"]),
        (["run"], ["chat"]),
        (["pull", "run"], ["pull", "run"]),
        (["pul", "smollm2"], ["pul", "smollm2"]),
        (["histroy"], ["chat", "histroy"]),
    ],
    ids=str,
)
def test_a_command_line_means(typed: list[str], command: list[str]) -> None:
    assert resolve_aliases(typed, COMMANDS) == command


def test_every_command_is_itself() -> None:
    for name in COMMANDS:
        assert resolve_aliases([name, "x"], COMMANDS) == [name, "x"]
