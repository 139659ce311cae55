"""GGUF files out of a stranger's hands, mutated with fixed seeds: llama.cpp would end the whole
process at many of them.
"""

import struct

import pytest
from support.checkpoints import save_tiny
from support.fuzz_doors import Door, knock_with_gguf
from support.tiny_gguf import write_gguf

pytest.importorskip("xllamacpp")
ASK = (
    "chat",
    "--no-log",
    "--no-server",
    "--engine",
    "gguf",
    "--context",
    "128",
    "--max-tokens",
    "2",
    "--temperature",
    "0",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole model in 150 kB, with a vocabulary and a chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    write_gguf(save_tiny(folder / "checkpoint"), folder / "tiny.gguf")
    return (folder / "tiny.gguf").read_bytes()


def test_what_was_not_mutated_answers_and_is_tried_once(
    door: Door, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    file = door.home / "tiny.gguf"
    file.write_bytes(tiny)
    assert door.run(*ASK, "-m", str(file), "the quick brown fox") == (0, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("tried again"))
    assert door.run(*ASK, "-m", str(file), "the quick brown fox") == (0, "")


@pytest.mark.parametrize(
    ("key", "form", "value"),
    [
        ("block_count", "<I", 0),
        ("block_count", "<I", 513),
        ("context_length", "<I", 0),
        ("attention.layer_norm_rms_epsilon", "<f", -1.0),
    ],
)
def test_a_file_that_aborts_llama_cpp_is_refused(
    door: Door, tiny: bytes, key: str, form: str, value: float
) -> None:
    """An assertion of ggml fails, at the last of them only when a token is computed, and takes the
    process with it.
    """
    at = tiny.index(f"llama.{key}".encode()) + len(f"llama.{key}") + 4
    file = door.home / "bad.gguf"
    file.write_bytes(tiny[:at] + struct.pack(form, value) + tiny[at + 4 :])
    assert door.check(key, *ASK, "-m", str(file), "hello") == 8
    assert (
        "llama.cpp cannot load bad.gguf: it crashes" in door.run(*ASK, "-m", str(file), "hello")[1]
    )


def test_a_mutated_gguf_file_is_one_line(door: Door, tiny: bytes) -> None:
    knock_with_gguf(door, ASK, tiny, 3, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_mutated_gguf_files_are_one_line(door: Door, tiny: bytes) -> None:
    knock_with_gguf(door, ASK, tiny, 20, 2)
