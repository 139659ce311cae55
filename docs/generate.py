"""Write docs/commands.md from the program's own help, and docs/models.md from the presets. `--check` fails when one is not up to date."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmchat.presets import Preset


def names_of(command: Any, path: str = "") -> list[str]:
    """A command and those below it, as they are typed; hidden ones are left out."""
    below = getattr(command, "commands", {})
    inner = [
        name
        for key, one in below.items()
        if not one.hidden
        for name in names_of(one, f"{path} {key}".strip())
    ]
    return [path, *inner]


def help_of(command: str) -> str:
    env = os.environ | {
        "COLUMNS": "110",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "_TYPER_FORCE_DISABLE_TERMINAL": "1",
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
    from typer.main import get_command

    from llmchat.cli import app

    names = names_of(get_command(app))
    sections = [
        f"## llmchat {command}".rstrip() + f"\n\n```\n{help_of(command)}\n```\n"
        for command in names
    ]
    return "# Commands\n\nWritten by `make docs` from `--help`; do not edit.\n\n" + "\n".join(
        sections
    )


def models() -> str:
    """Every preset and every prompt format, with where it comes from and what is not verified."""
    from llmchat.presets import formats, get_format, names

    presets = names().values()
    rows = [
        f"| `{one.name}` | {' + '.join(f'`{source.repo}`' for source in (one.base, *one.adapters))} | {one.format.name} "
        f"| {_count(one.parameters)} | {one.context.tokens:,} | {', '.join(map(str, one.stop_ids))} | {_cell(one.licence)} |"
        for one in presets
    ]
    notes = [_notes(one) for one in presets]
    shown = [
        f"| `{name}` | {_cell(form.source)} | {_cell(form.decision)} | {_cell(form.notes)} |"
        for name in formats()
        if (form := get_format(name))
    ]
    return "\n".join(
        [
            "# Models and prompt formats",
            "",
            "Written by `make docs` from the files in `llmchat/presets`; do not edit. Licences are those of the model cards; no legal reading.",
            "",
            f"## {len(rows)} models",
            "",
            "| name | base + adapters | format | parameters | window | ends, beside the config's | licence |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"## {len(shown)} formats",
            "",
            "How each writes a chat, text for text, stands in `tests/golden`.",
            "",
            "| format | source | decided, where sources disagree | notes |",
            "|---|---|---|---|",
            *shown,
            "",
            "## Notes on each model",
            "",
            "A model without a `Tested` note was never run here with its published weights: its facts come from the named sources,",
            "and its architecture is tested with small checkpoints.",
            "",
            *notes,
            "",
        ]
    )


def _notes(preset: Preset) -> str:
    sentences = [preset.notes, f"Sampling: {preset.sampling_source}."]
    if preset.unsupported:
        sentences.append(f"Cannot run: {preset.unsupported}.")
    sentences.append(f"Tested: {preset.tested}" if preset.tested else "")
    return f"- `{preset.name}`: " + " ".join(filter(None, sentences))


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


PAGES = {"commands.md": commands, "models.md": models}

if __name__ == "__main__":
    for name, write in PAGES.items():
        target = Path(__file__).parent / name
        if "--check" not in sys.argv:
            target.write_text(write(), "utf-8")
        elif not target.exists() or target.read_text("utf-8") != write():
            sys.exit(f"docs/{name} is not up to date: run `make docs`")
