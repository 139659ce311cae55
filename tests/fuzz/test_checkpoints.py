"""Checkpoints and adapters out of a stranger's hands: each file of them mutated with fixed seeds,
and opened by the program itself.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import fuzz_mutations
from support.checkpoints import CHATML, save_adapter, save_tiny
from support.fuzz_doors import Door, rounds, variant

pytestmark = pytest.mark.usefixtures("one_thread")
ASK = ("chat", "--no-log", "--no-server", "--max-tokens", "2", "--temperature", "0")
DOORS: dict[str, tuple[str, fuzz_mutations.Mutator]] = {
    "config": ("config.json", fuzz_mutations.of_json),
    "generation settings": ("generation_config.json", fuzz_mutations.of_json),
    "weights": ("model.safetensors", fuzz_mutations.of_safetensors),
    "tokenizer": ("tokenizer.json", fuzz_mutations.of_json),
    "tokenizer settings": ("tokenizer_config.json", fuzz_mutations.of_json),
    "chat template": ("chat_template.jinja", fuzz_mutations.of_text),
}
ADAPTER: dict[str, tuple[str, fuzz_mutations.Mutator]] = {
    "adapter settings": ("adapter_config.json", fuzz_mutations.of_json),
    "adapter weights": ("adapter_model.safetensors", fuzz_mutations.of_safetensors),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("base"))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def door(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    return Door(home, monkeypatch, capfd)


def knock(door: Door, base: Path, place: Path, part: str, count: int, seed: int) -> None:
    name, mutator = DOORS[part]
    for label, random in rounds(seed, count):
        with variant(base, place) as folder:
            fuzz_mutations.rewrite(folder / name, mutator, random)
            command = random.choice(("chat", "chat", "prompt", "show"))
            messages = place / "messages.json"
            messages.write_text('[{"role": "user", "content": "the quick brown fox"}]')
            arguments = {
                "chat": (*ASK, "-m", str(folder), "the quick brown fox"),
                "prompt": ("prompt", "--ids", "-m", str(folder), str(messages)),
                "show": ("show", str(folder)),
            }
            door.check(f"{part}, {label}, {command}", *arguments[command])


def test_what_was_not_mutated_opens(door: Door, base: Path, adapter: Path) -> None:
    assert door.run(*ASK, "-m", str(base), "the quick brown fox") == (0, "")
    assert door.run(*ASK, "-m", str(base), "--adapter", str(adapter), "the quick brown fox") == (
        0,
        "",
    )


def template(single: list[dict[str, Any]], specials: dict[str, Any]) -> dict[str, Any]:
    pair = [{"Sequence": {"id": which, "type_id": 0}} for which in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": specials,
    }


QUOTED = [{"SpecialToken": {"id": "<q>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
PANICS: dict[str, dict[str, Any]] = {
    "a stride beyond its length": {"truncation": {"direction": "Right", "max_length": 1,
        "strategy": "LongestFirst", "stride": 5}},
    "padding without an end": {
        "padding": {
            "strategy": {"Fixed": 2**62}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
        }
    },
    "a special token that is not there": {"post_processor": template(QUOTED, {})},
    "more ids than tokens": {"post_processor": template(QUOTED, {"<q>": {"id": "<q>", "ids": [1, 2],
        "tokens": ["a"]}})},
    "a table of characters that is none": {"normalizer": {"type": "Precompiled",
        "precompiled_charsmap": "AAAA"}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}  # fmt: skip


@pytest.mark.parametrize("fault", PANICS)
def test_a_panic_of_the_tokenizers_library_is_one_line(
    door: Door, base: Path, tmp_path: Path, fault: str
) -> None:
    """Raised as no Exception, after a trace on stderr that no Python code writes."""
    with variant(base, tmp_path) as folder:
        table = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(table | PANICS[fault]))
        code, told = door.run(*ASK, "-m", str(folder), "hello")
    assert code == 9 and told.startswith(
        "error: tokenizer.json cannot be read: its parser stopped"
    ), told
    assert "panicked" not in told


@pytest.mark.parametrize("part", DOORS)
def test_a_mutated_file_of_a_checkpoint_is_one_line(
    door: Door, base: Path, tmp_path: Path, part: str
) -> None:
    knock(door, base, tmp_path, part, 15, 1)


@pytest.mark.slow
@pytest.mark.parametrize("part", DOORS)
def test_many_mutated_files_of_a_checkpoint_are_one_line(
    door: Door, base: Path, tmp_path: Path, part: str
) -> None:
    knock(door, base, tmp_path, part, 60, 2)


def knock_adapter(
    door: Door, base: Path, adapter: Path, place: Path, part: str, count: int, seed: int
) -> None:
    name, mutator = ADAPTER[part]
    for label, random in rounds(seed, count):
        with variant(adapter, place) as folder:
            fuzz_mutations.rewrite(folder / name, mutator, random)
            door.check(
                f"{part}, {label}",
                *ASK,
                "-m",
                str(base),
                "--adapter",
                str(folder),
                "the quick brown fox",
            )


@pytest.mark.parametrize("part", ADAPTER)
def test_a_mutated_adapter_is_one_line(
    door: Door, base: Path, adapter: Path, tmp_path: Path, part: str
) -> None:
    knock_adapter(door, base, adapter, tmp_path, part, 15, 1)


@pytest.mark.slow
@pytest.mark.parametrize("part", ADAPTER)
def test_many_mutated_adapters_are_one_line(
    door: Door, base: Path, adapter: Path, tmp_path: Path, part: str
) -> None:
    knock_adapter(door, base, adapter, tmp_path, part, 60, 2)


def test_our_reader_refuses_what_the_formats_own_reader_refuses(base: Path, tmp_path: Path) -> None:
    """Overlaps, holes, places of another size than their shape, types that nobody knows."""
    from safetensors import safe_open

    from llmchat.engines.transformers.mapped_safetensors import MappedFile
    from llmchat.errors import IntegrityError

    path, refused = tmp_path / "model.safetensors", 0
    content = (base / "model.safetensors").read_bytes()
    for label, random in rounds(3, 300):
        path.write_bytes(fuzz_mutations.of_safetensors(random, content))
        try:
            with safe_open(path, "pt") as theirs:
                names = set(theirs.keys())
        except Exception:  # the library's own kind
            refused += 1
            with pytest.raises(IntegrityError):
                MappedFile(path)
                pytest.fail(f"{label}: read here, refused by the library")
            continue
        # We may be stricter: a type that torch has no name for.
        with suppress(IntegrityError):
            assert set(MappedFile(path).shapes) == names, label
    assert refused > 100
