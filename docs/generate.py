"""Write docs/commands.md from the program's own help. `--check` fails when the file is not up to date."""

import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "commands.md"
COMMANDS = [
    "",
    "chat",
    "pull",
    "ls",
    "show",
    "rm",
    "verify",
    "presets",
    "presets check",
    "doctor",
    "prompt",
    "sessions",
    "sessions list",
    "sessions search",
    "sessions show",
    "sessions rename",
    "sessions tag",
    "sessions delete",
    "sessions purge",
    "sessions backup",
    "sessions path",
    "sessions export",
    "sessions import",
    "sessions replay",
    "config",
    "config show",
    "config path",
]


def help_of(command: str) -> str:
    env = os.environ | {"COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    out = subprocess.run([sys.executable, "-m", "llmchat", *command.split(), "--help"], capture_output=True, text=True, check=True, env=env)
    return "\n".join(line.rstrip() for line in out.stdout.strip().splitlines())


def write() -> str:
    sections = [f"## llmchat {command}".rstrip() + f"\n\n```\n{help_of(command)}\n```\n" for command in COMMANDS]
    return "# Commands\n\nWritten by `make docs` from `--help`; do not edit.\n\n" + "\n".join(sections)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if TARGET.read_text("utf-8") != write():
            sys.exit("docs/commands.md is not up to date: run `make docs`")
    else:
        TARGET.write_text(write(), "utf-8")
