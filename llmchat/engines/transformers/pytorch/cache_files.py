"""A cache of one text as a file: keys, values and states by block, and what they belong to."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmchat.engines.transformers.pytorch.state_copies import StateCopies, StateCopy, States

# What reading a file raises that is missing, damaged or of another layout.
DAMAGED = (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError)


@dataclass(frozen=True)
class Header:
    """key: of the model that computed the cache; layout: what its blocks remember; ids: of the
    text; is_long: see KVCache; copies: the lengths of the copies of states.
    """

    key: str
    layout: str
    ids: list[int]
    is_long: bool = False
    copies: Sequence[int] = ()

    def metadata(self) -> dict[str, str]:
        return {
            "key": self.key, "layout": self.layout, "ids": json.dumps(self.ids),
            "is_long": json.dumps(self.is_long), "copies": json.dumps(list(self.copies)),
        }  # fmt: skip

    @classmethod
    def of(cls, metadata: dict[str, str]) -> "Header":
        ids, is_long, copies = (json.loads(metadata[name]) for name in ("ids", "is_long", "copies"))
        return cls(metadata["key"], metadata["layout"], ids, is_long, copies)


def named_states(states: States, copies: StateCopies) -> dict[str, Tensor]:
    """The tensors of a file for the states of a cache and their copies."""
    named = {f"states.{block}": state for block, state in _present(states)}
    for copy in copies:
        for block, state in _present(copy.states):
            named[f"states.{block}.{copy.length}"] = state
    return named


def write(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    """The file appears when it is complete, and only its owner can read it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.touch(0o600)
        save_file(tensors, partial, metadata=header.metadata())
        partial.chmod(0o600)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class CacheFile:
    """An open file. What reads it raises one of DAMAGED."""

    def __init__(self, file: Any):
        self._file = file
        self.header = Header.of(file.metadata() or {})

    def tensor(self, name: str, shape: Sequence[int]) -> Tensor:
        found: Tensor = self._file.get_tensor(name)
        if found.shape != tuple(shape):
            raise ValueError(f"{name} is {tuple(found.shape)}")
        return found

    def states(self, like: States, length: int | None = None) -> tuple[Tensor | None, ...]:
        """The states in the shapes of `like`; length: those of a copy."""
        end = "" if length is None else f".{length}"
        return tuple(
            None if state is None else self.tensor(f"states.{block}{end}", state.shape)
            for block, state in enumerate(like)
        )

    def copies(self, like: States) -> Iterator[StateCopy]:
        for length in self.header.copies:
            yield StateCopy(length, self.states(like, length))


@contextmanager
def opened(path: Path) -> Iterator[CacheFile]:
    with safe_open(path, "pt") as file:
        yield CacheFile(file)


def _present(states: States) -> Iterator[tuple[int, Tensor]]:
    return ((block, state) for block, state in enumerate(states) if state is not None)
