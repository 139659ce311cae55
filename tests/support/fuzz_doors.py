"""A command run in this process on a hostile file, and what every such run must hold to."""

import io
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import fuzz_mutations

# 3 and 6 may be said of files as well: a folder that holds no model, a size that no machine has.
EXPECTED = (0, 1, 2, 3, 6, 7, 8, 9)
_FORBIDDEN = (
    "error: unexpected ",
    "Traceback",
    "panicked",
    "mistake in llmchat",
    "bug in llmchat",
    "\x1b",
)


class Door:
    """Runs commands in a home of their own."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ):
        self.home = home
        self._capture = capture
        monkeypatch.setenv("HOME", str(home))
        for name in (
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "XDG_CACHE_HOME",
            "HF_HOME",
            "HF_HUB_CACHE",
            "LLMCHAT_TRACEBACK",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and stderr, what libraries in other languages write to it included."""
        from llmchat.cli import main

        self._capture.readouterr()
        code = main(list(command))
        return code, self._capture.readouterr().err

    def check(self, what: str, *command: str) -> int:
        """Run it; the exit code is documented, and stderr is an error and a hint at most."""
        code, told = self.run(*command)
        lines = [line for line in told.splitlines() if line and not line.startswith("note: ")]
        problem = f"{what}: exit {code}, stderr: {told[:2000]!r}"
        assert code in EXPECTED and code != 1, problem
        assert len(lines) <= 2 and not any(word in told for word in _FORBIDDEN), problem
        assert (code == 0) == (not any(line.startswith("error: ") for line in lines)), problem
        return code


@contextmanager
def variant(base: Path, place: Path) -> Iterator[Path]:
    """A copy of a folder, gone afterwards."""
    folder = place / "variant"
    shutil.copytree(base, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def rounds(seed: int, count: int) -> Iterator[tuple[str, random.Random]]:
    """Generators with seeds of their own, so that a failing round can be run alone."""
    for number in range(count):
        yield f"seed {seed * 1000 + number}", random.Random(seed * 1000 + number)


def knock_with_gguf(door: Door, ask: Sequence[str], content: bytes, count: int, seed: int) -> None:
    """Ask `count` mutations of a GGUF file."""
    for label, dice in rounds(seed, count):
        file = door.home / f"{dice.random()}.gguf"
        file.write_bytes(fuzz_mutations.of_gguf(dice, content))
        door.check(label, *ask, "-m", str(file), "the quick brown fox")
        file.unlink()
