"""An embedder: texts to vectors."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.embedding_spec import EmbeddingSpec
from llmchat.engines.transformers.embedding.architectures import open_encoder
from llmchat.engines.transformers.embedding.batches import batches
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.embedding.texts import Texts
from llmchat.errors import Mismatch, UsageError


class TextEmbedder:
    """Implements memory.types.Embedder. Several threads may use it."""

    def __init__(self, folder: Path, spec: EmbeddingSpec, name: str, device: str = "cpu"):
        self.name, self.spec = name, spec
        self.width = spec.dimensions
        self._texts = Texts(folder, spec.longest, spec.ends_with)
        self._encoder = open_encoder(folder, device)
        self._dense = [read_dense(folder / part) for part in spec.dense]
        self.longest = spec.longest - self._texts.specials - self.count(spec.passage)
        self._one_at_a_time = threading.Lock()

    def count(self, text: str) -> int:
        """Tokens of a text, without prefix and special tokens."""
        return self._texts.count(text)

    def embed_questions(self, texts: Sequence[str]) -> Any:
        """float32 [texts, width]."""
        return self.embed(texts, self.spec.query)

    def embed_passages(self, texts: Sequence[str]) -> Any:
        """float32 [texts, width]."""
        return self.embed(texts, self.spec.passage)

    def embed(self, texts: Sequence[str], prefix: str = "", dimensions: int = 0) -> Any:
        """float32 [texts, dimensions]; see `vectors`."""
        return self.vectors(self.encode([prefix + text for text in texts]), dimensions)

    def encode(self, texts: Sequence[str], *, cut: bool = True) -> list[list[int]]:
        """The ids of texts that have their prefix. cut: to what the model reads."""
        return self._texts.encode(texts, cut=cut)

    def ids(self, text: str) -> list[int]:
        """All ids of a text without a prefix."""
        return self.encode([text], cut=False)[0]

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int = 0) -> Any:
        """The vectors of texts as ids: float32 [texts, dimensions], a numpy array.

        dimensions: 0 for all. Raises UsageError for a number that the model was not trained for.
        """
        self._check(dimensions)
        # A text without tokens, which only some tokenizers make, has the vector 0.
        vectors = torch.zeros(len(rows), dimensions or self.width)
        with self._one_at_a_time, torch.inference_mode():
            for part in batches([len(row) for row in rows]):
                packed = Packed.of([rows[index] for index in part])
                vectors[part] = self._vectors(packed, dimensions)
        return vectors.numpy()

    def _vectors(self, packed: Packed, dimensions: int) -> Tensor:
        """[n, dimensions]"""
        pooled = pool(self._encoder.hidden(packed), packed, self.spec.pooling)
        for dense in self._dense:
            pooled = dense(pooled)
        if 0 < dimensions < self.width:
            if self.spec.norm_before_cut:
                pooled = F.layer_norm(pooled, pooled.shape[1:])
            pooled = pooled[:, :dimensions]
        return F.normalize(pooled, dim=-1) if self.spec.normalise else pooled

    def _check(self, dimensions: int) -> None:
        least = self.spec.shortest or self.width
        if dimensions and not least <= dimensions <= self.width:
            can = f"{least} to {self.width}" if least < self.width else f"{self.width}"
            raise UsageError(f"`{self.name}` makes vectors of {can} numbers, not {dimensions}")


def read_dense(folder: Path) -> Callable[[Tensor], Tensor]:
    """A dense layer of sentence-transformers, [n, in] → [n, out]."""
    function = str(read_json(folder / "config.json").get("activation_function", ""))
    name = function.rpartition(".")[2]
    if name not in _DENSE_ACTIVATIONS:
        raise Mismatch(f"{folder.name} has the unsupported activation function `{function}`")
    linear = NamedTensors(folder).linear("linear")
    return lambda x: _DENSE_ACTIVATIONS[name](linear(x))


def pool(hidden: Tensor, packed: Packed, how: str) -> Tensor:
    """One vector a text of its tokens' vectors: [T, width] → [n, width]."""
    return _POOLS[how](hidden, packed)


def _mean(hidden: Tensor, packed: Packed) -> Tensor:
    texts = torch.arange(len(packed.lengths)).repeat_interleave(torch.tensor(packed.lengths))
    sums = torch.zeros(len(packed.lengths), hidden.shape[1]).index_add_(0, texts, hidden)
    return sums / torch.tensor(packed.lengths)[:, None]


_DENSE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
}
_POOLS: dict[str, Callable[[Tensor, Packed], Tensor]] = {
    "mean": _mean,
    "cls": lambda hidden, packed: hidden[packed.starts],
    "last": lambda hidden, packed: hidden[packed.starts + torch.tensor(packed.lengths) - 1],
}
