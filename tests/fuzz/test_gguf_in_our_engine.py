"""GGUF files out of a stranger's hands, mutated with fixed seeds, in llmchat's own engine: each
answers, or is refused in one line.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fuzz_mutations
from support.checkpoints import save_tiny
from support.fuzz_doors import Door, rounds
from support.tiny_families import CASES
from support.tiny_gguf import write_gguf

ASK = (
    "chat", "--no-log", "--no-server", "--engine", "transformers", "--max-tokens", "2",
    "--temperature", "0", "--device", "cpu", "--weights", "bf16",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("tiny")
    base = save_tiny(folder / "base", CASES["llama"].config())
    return write_gguf(base, folder / "tiny.gguf").read_bytes()


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield Door(tmp_path, monkeypatch, capfd)


def knock(door: Door, content: bytes, count: int, seed: int) -> None:
    for label, random in rounds(seed, count):
        file = door.home / f"{random.random()}.gguf"
        file.write_bytes(fuzz_mutations.of_gguf(random, content))
        door.check(label, *ASK, "-m", str(file), "the quick brown fox")
        file.unlink()


def test_what_was_not_mutated_answers(door: Door, tiny: bytes) -> None:
    file = door.home / "tiny.gguf"
    file.write_bytes(tiny)
    assert door.run(*ASK, "-m", str(file), "the quick brown fox")[0] == 0


def test_a_mutated_gguf_file_is_one_line(door: Door, tiny: bytes) -> None:
    knock(door, tiny, 6, 11)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_mutated_gguf_files_are_one_line(door: Door, tiny: bytes) -> None:
    knock(door, tiny, 150, 12)
