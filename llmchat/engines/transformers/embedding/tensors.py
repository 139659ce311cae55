"""The tensors of an encoder by name, in float32, whatever prefix the checkpoint gives them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmchat.engines.transformers.embedding.linear import Linear
from llmchat.engines.transformers.weights import FileTensors
from llmchat.errors import IntegrityError

# What checkpoints with a head write before the names of the encoder.
_PREFIXES = ("", "bert.", "roberta.", "model.", "nomic_bert.")


class NamedTensors:
    """The tensors of a folder; names are those of the bare encoder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._files = FileTensors(folder)

    def __contains__(self, name: str) -> bool:
        return self._stored(name) is not None

    def get(self, name: str) -> Tensor:
        """Raises IntegrityError if there is no such tensor."""
        stored = self._stored(name)
        if stored is None:
            raise IntegrityError(f"{self._folder.name} has no tensor `{name}`")
        return self._files.get(stored).float().contiguous()

    def linear(self, *names: str) -> Linear:
        """One linear layer of the matrices of several, stacked along the rows."""
        biases = [f"{name}.bias" for name in names]
        bias = self._stacked(biases) if biases[0] in self else None
        return Linear(self._stacked([f"{name}.weight" for name in names]), bias)

    def _stacked(self, names: Sequence[str]) -> Tensor:
        return torch.cat([self.get(name) for name in names])

    def _stored(self, name: str) -> str | None:
        found = (prefix + name for prefix in _PREFIXES if prefix + name in self._files.shapes)
        return next(found, None)
