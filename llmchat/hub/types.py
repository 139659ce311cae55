"""What the hub room gives and takes."""

from pathlib import Path
from typing import Protocol

from msgspec import Struct

from llmchat.presets.types import Source


class Checkpoint(Struct, frozen=True):
    """A folder that an engine can open: a base (config.json, safetensors, tokenizer), or an adapter (adapter_config.json, safetensors).

    revision: the commit, the wheel's version, or "" for a path; size: bytes of the weights.
    """

    path: Path
    source: Source
    revision: str
    size: int

    @property
    def from_gguf(self) -> bool:
        """Whether it was dequantised from a .gguf file when it was pulled."""
        return any(name.endswith(".gguf") for name in (self.source.repo, *self.source.files))


class Pulled(Struct, frozen=True):
    """What a pull did: bytes fetched now (0 when all was there), and in words."""

    checkpoint: Checkpoint
    downloaded: int
    notes: tuple[str, ...]


class Fact(Struct, frozen=True):
    """What a file must be: its size and the checksum that was published for it, a sha256 or git's blob id.

    time: when the file was last changed, in nanoseconds since 1970, as it was when its bytes were last read; 0: nobody has read them.
    """

    size: int = 0
    sha256: str = ""
    git: str = ""
    time: int = 0


class Receipt(Struct, frozen=True):
    """What was pulled for a source, kept as JSON: the folder to open, and every file it consists of.

    source: None in receipts of releases that did not write it; licence: as the repo's card says; damaged: files that were found to be.
    """

    path: str
    revision: str
    size: int
    files: dict[str, Fact]
    source: Source | None = None
    licence: str = ""
    damaged: tuple[str, ...] = ()


class Progress(Protocol):
    """Shows how far a pull is. Steps may run side by side, from several threads; `advance` counts for all of them."""

    def expect(self, what: str, total: int) -> None:
        """All that is going to be fetched, in bytes: one display for it, until `close`."""
        ...

    def start(self, what: str, total: int | None) -> None:
        """A step begins; total in bytes, None when nobody knows."""
        ...

    def advance(self, count: int) -> None: ...

    def done(self) -> None:
        """The last step that began is over."""
        ...

    def note(self, line: str) -> None:
        """Something to know while it goes on."""
        ...

    def close(self) -> None: ...
