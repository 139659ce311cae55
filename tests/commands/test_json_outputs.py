"""What every command prints with --json, byte for byte. `pytest --golden` writes the files anew."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from msgspec.structs import replace
from support.worlds import make_world
from typer.main import get_command

from llmchat.cli import app, main
from llmchat.commands.json_reference import OUTPUTS, fields_of
from llmchat.settings import Options, World

GOLDEN = Path(__file__).with_name("json")
MESSAGES = '[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]'
PRESET = """
title = "A tiny model"
parameters = 1e6
licence = "MIT"
format = "chatml"
stop_ids = [4]
notes = "For tests."
tested = "2026-01-01"
sampling_source = "the tests"
[base]
kind = "path"
repo = "{folder}"
"""
# Name of the golden file → the command line.
COMMANDS = {
    "chat": ["chat", "--engine", "scripted", "--seed", "1", "--json", "Hello"],
    "chat-extract": ["chat", "--engine", "scripted", "--seed", "1", "--json", "-x", "Hello"],
    "config-show": ["config", "show", "--json"],
    "config-show-origin": ["config", "show", "--origin", "--json"],
    "data-inspect": ["data", "inspect", "{home}/data.jsonl", "--json"],
    "doctor": ["doctor", "tiny", "--json"],
    "doctor-not-pulled": ["doctor", "alpaca-7b", "--json"],
    "ls": ["ls", "--json"],
    "ls-elsewhere": ["ls", "--elsewhere", "--json"],
    "plugins": ["plugins", "--json"],
    "presets": ["presets", "--json", "alpaca-7b"],
    "presets-check": ["presets", "check", "{home}/wrong.toml", "--json"],
    "compare": ["compare", "-m", "smollm2", "--engine", "scripted", "--json", "Hello"],
    "evaluate": [
        "evaluate", "-m", "smollm2", "--engine", "scripted",
        "--tasks", "{home}/tasks.jsonl", "--json",
    ],
    "index-list": ["index", "list", "--json"],
    "index-search": ["index", "search", "notes", "apples", "--mode", "words", "--json"],
    "index-show": ["index", "show", "notes", "--json"],
    "index-show-source": ["index", "show", "notes", "{home}/apples.md", "--json"],
    "memory-list": ["memory", "list", "--json"],
    "sessions-list": ["sessions", "list", "--json"],
    "sessions-search": ["sessions", "search", "Hello", "--json"],
    "sessions-show": ["sessions", "show", "{session}", "--json"],
    "sessions-show-tree": ["sessions", "show", "{session}", "--tree", "--json"],
    "sessions-replay": ["sessions", "replay", "{session}", "--json"],
    "serve-keys-list": ["serve", "keys", "list", "--json"],
    "show": ["show", "alpaca-7b", "--json"],
    "show-pulled": ["show", "tiny", "--json"],
    "pull": ["pull", "tiny", "--dry-run", "--json"],
}  # fmt: skip


@pytest.fixture
def told(tmp_path: Path, folders: tuple[Path, Path]) -> World:
    """A world with a model, a chat, a key, data to train on and tasks; its clock stands still."""
    world = replace(make_world(tmp_path, tty=False), now=lambda: 1_700_040_000.0)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "tiny.toml").write_text(PRESET.format(folder=folders[0]))
    (tmp_path / "wrong.toml").write_text('title = "x"\nformt = "chatml"\n')
    row = '{"instruction": "What is 1 + 1?", "input": "", "output": "2"}\n'
    (tmp_path / "data.jsonl").write_text(row + row + '{"instruction": "", "output": "b"}\n')
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "Hello", "answer": "no", "kind": "exact"}\n')
    assert main(["chat", "--engine", "scripted", "--seed", "1", "--json", "Hello"], world) == 0
    assert main(["serve", "keys", "add", "somebody"], world) == 0
    (tmp_path / "apples.md").write_text("# Apples\n\nApples keep until March.\n")
    added = ["index", "add", "notes", str(tmp_path / "apples.md"), "--embedder", "none"]
    assert main(added, world) == 0
    assert main(["memory", "add", "I live in Graz"], world) == 0
    return empty(world)


def empty(world: World) -> World:
    """The same world with nothing printed yet."""
    fresh = make_world(world.config.parent)
    return replace(world, stdin=fresh.stdin, stdout=fresh.stdout, stderr=fresh.stderr)


def printed(world: World, arguments: list[str]) -> str:
    main(arguments, world)
    return world.stdout.getvalue()  # type: ignore[attr-defined, no-any-return]


def steady(text: str, home: Path, base: Path) -> str:
    """The output without what differs from run to run, or is a sentence of another test."""
    text = text.replace(str(home), "HOME").replace(str(base), "BASE")
    text = re.sub(r'("(?:load|prefill|decode)_s": ?)[0-9.e-]+', r"\1 0.0", text)
    text = re.sub(r'("(?:seconds|tokens_per_second)": ?)[0-9.e-]+', r"\1 0.0", text)
    text = re.sub(r'("(?:session|id)": ?)"[a-z0-9]{8}"', r'\1 "SESSION"', text)
    text = re.sub(r'("key": ?)"….{4}"', r'\1 "KEY"', text)
    # Sentences of presets, formats and checks, which other tests read.
    text = re.sub(r'("(?:about|notes)": ?)"(?:[^"\\]|\\.)*"', r'\1 "…"', text)
    text = re.sub(r'("subject": ?"[^"]*",\s*"text": ?)"(?:[^"\\]|\\.)*"', r'\1 "…"', text)
    text = re.sub(r'("fits": ?)"[a-z0-9]+"', r'\1 "int8"', text)
    # It depends on the machine.
    text = re.sub(r'("runs": ?)"[^"]+"', r'\1 "…"', text)
    # The clock of the file system does not stand still.
    text = re.sub(r'("updated": ?)[0-9]+\.[0-9]{2,}', r"\1 0.0", text)
    return re.sub(r'("free": ?)[0-9]+', r"\1 0", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_json_of_a_command(
    name: str, told: World, folders: tuple[Path, Path], pytestconfig: pytest.Config
) -> None:
    home = told.config.parent
    listed = printed(told, ["sessions", "list", "-q"])
    places = {"{home}": str(home), "{session}": listed.strip()}
    arguments = COMMANDS[name]
    for mark, value in places.items():
        arguments = [word.replace(mark, value) for word in arguments]
    found = steady(printed(empty(told), arguments), home, folders[0])
    file = GOLDEN / f"{name}.json"
    if pytestconfig.getoption("golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, "utf-8")
    assert found == file.read_text("utf-8")


def commands_with_json(command: Any, path: str = "") -> set[str]:
    """Every command that has a --json flag, as it is typed."""
    own = {path} if any("--json" in one.opts for one in command.params) else set()
    below = getattr(command, "commands", {})
    return own.union(
        *(commands_with_json(one, f"{path} {name}".strip()) for name, one in below.items())
    )


def test_every_json_output_is_documented() -> None:
    documented = {re.sub(r" (--\w+|[A-Z]+)", "", command) for command in OUTPUTS}
    assert documented == commands_with_json(get_command(app))
    bare = [
        f"{command}: {field.path}"
        for command, kind in OUTPUTS.items()
        for field in fields_of(kind)
        if not field.about
    ]
    assert not bare, "no text below these fields"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documented_type_has_every_field_that_is_printed(name: str) -> None:
    words = [word for word in COMMANDS[name] if re.fullmatch(r"[a-z]+|--origin", word)]
    typed = (" ".join(words[:count]) for count in (3, 2, 1))
    kind = OUTPUTS[next(command for command in typed if command in OUTPUTS)]
    printed = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    value = msgspec.convert(printed, kind)
    again = structs.asdict(value) if kind is Options else value
    assert json.loads(msgspec.json.encode(again)) == printed
