"""What the hub room gives and takes."""

from pathlib import Path

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
