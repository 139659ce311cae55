"""A cross-encoder: question and passage are read together and get one score."""

import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from llmchat.engines.embedding_spec import RerankSpec
from llmchat.engines.transformers.embedding.architectures import open_encoder
from llmchat.engines.transformers.embedding.batches import batches
from llmchat.engines.transformers.embedding.bert import score_head
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.embedding.texts import Texts


class CrossEncoder:
    """Implements memory.types.Reranker. Several threads may use it."""

    def __init__(self, folder: Path, spec: RerankSpec, name: str):
        self.name, self.spec = name, spec
        self._texts = Texts(folder, spec.longest)
        self._encoder = open_encoder(folder)
        self._head = score_head(NamedTensors(folder))
        self._one_at_a_time = threading.Lock()

    def count(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return self._texts.count(text)

    def ids(self, text: str) -> list[int]:
        """All ids of a text alone."""
        return self._texts.encode([text], cut=False)[0]

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """From 0 to 1, the higher the better."""
        return self.score(question, passages)[0]

    def score(self, question: str, passages: Sequence[str]) -> tuple[list[float], int]:
        """The scores, and the tokens that were read."""
        pairs = self._texts.encode_pairs(question, passages)
        lengths = [len(ids) for ids, _ in pairs]
        scores = torch.empty(len(pairs))
        with self._one_at_a_time, torch.inference_mode():
            for part in batches(lengths):
                ids, types = zip(*(pairs[index] for index in part), strict=True)
                packed = Packed.of(ids, types)
                first = self._encoder.hidden(packed)[packed.starts]
                scores[part] = self._head(first)[:, 0].sigmoid()
        return scores.tolist(), sum(lengths)
