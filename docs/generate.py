"""Write the generated pages: commands, models, families, JSON output, environment variables.

`--check` writes nothing and fails if a page is out of date.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reference import environment_page, families_page, json_page

from llmchat.plugins import configure
from llmchat.presets import Preset

COMMANDS_HEAD = """\
# Commands

Generated from `--help` by `make docs`; do not edit.

"""
MODELS_HEAD = """\
# Models and prompt formats

Generated from the files in `llmchat/presets` by `make docs`; do not edit.

Licences are quoted from the model cards; this is not legal advice. The additional stop ids end an
answer as well as the checkpoint's own.
"""
NOTES_HEAD = """
## Notes on each model

A model without a `Tested` note has not run here with its published weights. Its facts come from the
named sources, and its architecture is tested with small checkpoints.
"""


def names_of(command: Any, path: str = "") -> list[str]:
    """A command and its subcommands as the user types them, without hidden ones."""
    subcommands = getattr(command, "commands", {})
    names = [path]
    for name, subcommand in subcommands.items():
        if not subcommand.hidden:
            names += names_of(subcommand, f"{path} {name}".strip())
    return names


def help_of(command: str) -> str:
    env = os.environ | {
        "COLUMNS": "110",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "_TYPER_FORCE_DISABLE_TERMINAL": "1",
        "LLMCHAT_NO_PLUGINS": "1",
    }
    out = subprocess.run(
        [sys.executable, "-m", "llmchat", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    return "\n".join(line.rstrip() for line in out.stdout.strip().splitlines())


def commands() -> str:
    """The help of every command."""
    from typer.main import get_command

    from llmchat.cli import app

    named = names_of(get_command(app))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        helps = pool.map(help_of, named)
    sections = [
        f"## llmchat {command}".rstrip() + f"\n\n```\n{text}\n```\n"
        for command, text in zip(named, helps, strict=True)
    ]
    return COMMANDS_HEAD + "\n".join(sections)


def models() -> str:
    """Every preset and every prompt format, with its sources and what is not verified."""
    from llmchat.presets import formats, get_format, names

    presets = list(names().values())
    written = [(name, form) for name in formats() if (form := get_format(name))]
    lines = [
        MODELS_HEAD,
        f"## {len(presets)} models\n",
        "| name | base + adapters | format | parameters | window | additional stop ids | licence |",
        "|---|---|---|---|---|---|---|",
        *map(_model_row, presets),
        f"\n## {len(written)} formats\n",
        "`tests/golden` contains a chat in each format, exactly as the model is given it.\n",
        "| format | source | decision, if sources disagree | notes |",
        "|---|---|---|---|",
        *(_format_row(name, form) for name, form in written),
        NOTES_HEAD,
        *map(_notes, presets),
    ]
    return "\n".join(lines) + "\n"


def _model_row(preset: Preset) -> str:
    repos = " + ".join(f"`{source.repo}`" for source in (preset.base, *preset.adapters))
    stop_ids = ", ".join(map(str, preset.stop_ids))
    cells = (
        f"`{preset.name}`",
        repos,
        preset.format.name,
        _count(preset.parameters),
        f"{preset.context.tokens:,}",
        stop_ids,
        _cell(preset.licence),
    )
    return f"| {' | '.join(cells)} |"


def _format_row(name: str, form: Any) -> str:
    cells = (f"`{name}`", _cell(form.source), _cell(form.decision), _cell(form.notes))
    return f"| {' | '.join(cells)} |"


def _notes(preset: Preset) -> str:
    """What a reader should know before using a model, as one list item."""
    sentences = [preset.notes, _window_note(preset), f"Sampling: {preset.sampling_source}."]
    if preset.source:
        sentences.append(f"Source: {preset.source}.")
    if preset.unread:
        sentences.append(f"Not read from a source: {', '.join(preset.unread)}.")
    if preset.unsupported:
        sentences.append(f"Cannot run: {preset.unsupported}.")
    if preset.tested:
        sentences.append(f"Tested: {preset.tested}")
    return f"- `{preset.name}`: " + " ".join(filter(None, sentences))


def _window_note(preset: Preset) -> str:
    trained, tokens = preset.trained_context, preset.context.tokens
    if trained <= tokens:
        return ""
    return f"Made for {trained:,} tokens; the window is {tokens:,} unless --context widens it."


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


PAGES = {
    "commands.md": commands,
    "models.md": models,
    "json.md": json_page,
    "environment.md": environment_page,
    "families.md": families_page,
}

if __name__ == "__main__":
    # The pages do not depend on what is installed here.
    configure({"LLMCHAT_NO_PLUGINS": "1"})
    for name, write in PAGES.items():
        target = Path(__file__).parent / name
        if "--check" not in sys.argv:
            target.write_text(write(), "utf-8")
        elif not target.exists() or target.read_text("utf-8") != write():
            sys.exit(f"docs/{name} is not up to date: run `make docs`")
