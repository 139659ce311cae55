"""A model in the store of another program."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.presets.types import Source


class StoredModel(Struct, frozen=True):
    """A GGUF file of another program, with what that program adds to it.

    source: the model's name there. file: the first of its files. size: bytes of all. adapters: LoRA
    adapters as GGUF. parameters: sampling and window, by ollama's names. left_out: what the store
    has and llmchat does not use.
    """

    source: Source
    file: Path
    size: int
    adapters: tuple[Path, ...] = ()
    system: str = ""
    parameters: dict[str, Any] = {}
    licence: str = ""
    left_out: tuple[str, ...] = ()


def is_folder(path: Path) -> bool:
    """Whether there is a folder that may be looked into; no error where it may not."""
    with suppress(OSError):
        return path.is_dir()
    return False
