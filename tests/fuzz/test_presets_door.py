"""Mutated presets and message files of a user, with fixed seeds.

Errors name the file, and commands that do not need it work.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fuzz_mutations
from support.fuzz_doors import Door, rounds

PRESET = b"""title = "Mine"
aliases = ["my-model"]
adapter_scale = 0.5
engine = "transformers"
weights = "int8"
system = "Be brief."
stop_ids = [2]
parameters = 7e9
licence = "apache-2.0"

[base]
kind = "hub"
repo = "org/model"
revision = "main"

[[adapters]]
kind = "hub"
repo = "org/adapter"

[format]
source = "mine"
stops = ["###"]

[format.parts]
user = "User: {text}"
cue = "Bot:"
assistant = " {text}"
separator = "\\n"

[context]
policy = "drop-oldest"
low_water = 0.5

[sampling]
temperature = 0.5
"""
MESSAGES = json.dumps([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Sum it up.", "input": "A text."},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And?"},
]).encode()  # fmt: skip


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    door = Door(tmp_path, monkeypatch, capfd)
    (tmp_path / ".config" / "llmchat" / "presets").mkdir(parents=True)
    yield door


def own_preset(door: Door) -> Path:
    """A new file each time, so that nothing is remembered of the one before."""
    from llmchat.presets import load

    load._named_in.cache_clear()
    return door.home / ".config" / "llmchat" / "presets" / "mine.toml"


def knock_presets(door: Door, count: int, seed: int) -> None:
    for label, random in rounds(seed, count):
        file = own_preset(door)
        file.write_bytes(fuzz_mutations.of_toml(random, PRESET))
        for command in (
            ("ls",),
            ("ls", "-q"),
            ("presets",),
            ("presets", "-q"),
            ("prompt", "-m", "alpaca-7b", str(messages(door))),
        ):
            assert door.check(f"{label}, {command}", *command) == 0, (
                f"{label}: a broken preset is in the way of {command[0]}"
            )
        for command in (
            ("prompt", "-m", "mine", str(messages(door))),
            ("presets", "check", str(file)),
            ("show", "mine"),
            ("doctor", "mine"),
        ):
            door.check(f"{label}, {command}", *command)


def messages(door: Door, content: bytes = MESSAGES) -> Path:
    path = door.home / "messages.json"
    path.write_bytes(content)
    return path


def knock_messages(door: Door, count: int, seed: int) -> None:
    for label, random in rounds(seed, count):
        path = messages(door, fuzz_mutations.of_json(random, MESSAGES))
        door.check(label, "prompt", "-m", "alpaca-7b", str(path))


def test_mutated_presets_break_no_other_command(door: Door) -> None:
    knock_presets(door, 3, 1)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_mutated_presets_break_no_other_command(door: Door) -> None:
    knock_presets(door, 40, 2)


def test_mutated_messages_are_one_line(door: Door) -> None:
    knock_messages(door, 40, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_mutated_messages_are_one_line(door: Door) -> None:
    knock_messages(door, 600, 2)


def test_a_preset_in_another_encoding_is_told_of_once_and_by_name(door: Door) -> None:
    own_preset(door).write_bytes(b'title = "caf\xe9"\n')
    for command in ("ls", "presets"):
        code, told = door.run(command)
        assert (
            code == 0
            and told.count("mine.toml") == 1
            and "is not valid TOML: it is not text in UTF-8" in told
        )
    assert door.run("ls", "-q") == (0, "")
    code, told = door.run("show", "mine")
    assert code == 2 and "mine.toml is not valid TOML" in told


def test_a_folder_and_a_deeply_nested_table_are_no_presets(door: Door) -> None:
    own_preset(door).write_text("a = " + "[" * 30_000)
    (own_preset(door).parent / "folder.toml").mkdir()
    code, told = door.run("ls")
    assert (
        code == 0
        and "it is nested too deeply" in told
        and "folder.toml cannot be read: Is a directory" in told
    )


def test_a_preset_of_a_server_is_listed_beside_prepared_copies(door: Door) -> None:
    """It has no files, and no copy can be made of them: `ls` looked for its base all the same."""
    own_preset(door).write_text(
        'engine = "openai"\nurl = "http://127.0.0.1:1"\n[base]\nkind = "served"\nrepo = ""\n'
    )
    copy = door.home / ".cache" / "llmchat" / "prepared" / "org--model-123"
    copy.mkdir(parents=True)
    recipe = {"base": {"source": {"kind": "hub", "repo": "org/model"}, "revision": ""}}
    (copy / "prepared.json").write_text(json.dumps({"recipe": recipe, "files": {}}))
    for command in (("ls",), ("ls", "-q")):
        assert door.run(*command) == (0, "")
    shutil.rmtree(copy)


def test_settings_that_cannot_be_read_are_named(door: Door) -> None:
    for text in (b"\xff", b"a = " + b"[" * 30_000):
        (door.home / ".config" / "llmchat" / "config.toml").write_bytes(text)
        code, told = door.run("ls")
        assert code in (0, 2) and "unexpected" not in told
        code, told = door.run("config", "show")
        assert code == 2 and "config.toml is not valid TOML" in told
