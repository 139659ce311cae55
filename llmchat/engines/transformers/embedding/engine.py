"""The engines of a server for embedders and rerankers, which answer no prompt."""

import time
from collections.abc import Generator, Sequence
from pathlib import Path

from llmchat.engines import Chunk, Finish, Sampling, Unloaded
from llmchat.engines.embedding_spec import EmbeddingSpec, RerankSpec
from llmchat.engines.transformers.embedding.embedder import TextEmbedder
from llmchat.engines.transformers.embedding.reranker import CrossEncoder
from llmchat.errors import ContextOverflow, Mismatch
from llmchat.prompt import Prompt


class _Answerless:
    """What an engine without answers says to everything that only others do."""

    resumes = False
    does = ""

    def __init__(self, model: TextEmbedder | CrossEncoder, started: float):
        self._model: TextEmbedder | CrossEncoder | None = model
        self.context = model.spec.longest
        self._name = model.name
        self.load_s = time.perf_counter() - started

    def count(self, text: str) -> int:
        return self._loaded().count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self._loaded().ids(prompt.text)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        self._loaded()
        raise Mismatch(f"{self._name} {self.does} and cannot write any")

    def describe(self) -> str:
        return f"{self._name} fp32 cpu"

    def clear_cache(self) -> None:
        """Does nothing: no text is remembered."""

    def unload(self) -> None:
        self._model = None

    def _loaded(self) -> TextEmbedder | CrossEncoder:
        if self._model is None:
            raise Unloaded(self.describe())
        return self._model

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        for index, length in enumerate(lengths):
            if length > self.context:
                size = f"text {index + 1} is {length:,} tokens"
                raise ContextOverflow(f"{size}; {self._name} reads {self.context:,}")


class EmbeddingEngine(_Answerless):
    """Implements capabilities.Embeds. Several threads may use it."""

    does = "embeds text"

    def __init__(self, folder: Path, spec: EmbeddingSpec, device: str = "auto", name: str = ""):
        started = time.perf_counter()
        embedder = TextEmbedder(folder, spec, name or folder.name, device)
        super().__init__(embedder, started)
        self.dimensions = spec.dimensions

    def embed(
        self, texts: Sequence[str], use: str = "", dimensions: int = 0
    ) -> tuple[list[list[float]], int]:
        """See capabilities.Embeds. No text is truncated."""
        embedder = self._loaded()
        assert isinstance(embedder, TextEmbedder)
        prefix = {"query": embedder.spec.query, "passage": embedder.spec.passage}.get(use, "")
        rows = embedder.encode([prefix + text for text in texts], cut=False)
        self._check_lengths([len(row) for row in rows])
        vectors = embedder.vectors(rows, dimensions)
        return vectors.tolist(), sum(map(len, rows))


class RerankEngine(_Answerless):
    """Implements capabilities.Reranks. Several threads may use it."""

    does = "scores text"

    def __init__(self, folder: Path, spec: RerankSpec, name: str):
        started = time.perf_counter()
        super().__init__(CrossEncoder(folder, spec, name), started)

    def rerank(self, question: str, passages: Sequence[str]) -> tuple[list[float], int]:
        """See capabilities.Reranks. Passages that are too long lose their end."""
        reranker = self._loaded()
        assert isinstance(reranker, CrossEncoder)
        return reranker.score(question, passages)
