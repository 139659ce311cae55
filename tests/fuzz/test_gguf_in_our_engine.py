"""GGUF files out of a stranger's hands, mutated with fixed seeds, in llmchat's own engine: each
answers, or is refused in one line.
"""

import pytest
from support.checkpoints import save_tiny
from support.fuzz_doors import Door, knock_with_gguf
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


def test_what_was_not_mutated_answers(door: Door, tiny: bytes) -> None:
    file = door.home / "tiny.gguf"
    file.write_bytes(tiny)
    assert door.run(*ASK, "-m", str(file), "the quick brown fox")[0] == 0


def test_a_mutated_gguf_file_is_one_line(door: Door, tiny: bytes) -> None:
    knock_with_gguf(door, ASK, tiny, 6, 11)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_mutated_gguf_files_are_one_line(door: Door, tiny: bytes) -> None:
    knock_with_gguf(door, ASK, tiny, 150, 12)
