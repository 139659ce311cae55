"""The engine for embedding models saved by sentence-transformers: encoder, pooling, normalisation.

`modules.json` names the steps, see
https://sbert.net/docs/sentence_transformer/usage/custom_models.html. Other steps are not supported.
"""

import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel

from llmchat.engines import Chunk, Finish, Sampling, Unloaded
from llmchat.engines.checkpoint_files import read_json, read_json_list
from llmchat.engines.transformers import memory_check
from llmchat.errors import ContextOverflow, Mismatch
from llmchat.prompt import Prompt

_STEPS = ("Transformer", "Pooling", "Normalize")
_BATCH = 32


class EmbeddingEngine:
    """Turns texts into vectors, and answers no prompt. Several threads may use it."""

    resumes = False

    def __init__(self, folder: Path, device: str = "auto", name: str = ""):
        started = time.perf_counter()
        self._name = name or folder.name
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._device = torch.device(chosen)
        self._pool, self._normal = _steps(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        with memory_check.reported():
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        self._model: Any = model.eval().to(self._device)
        own = int(model.config.max_position_embeddings)
        self.context = min(
            own, int(read_json(folder / "sentence_bert_config.json").get("max_seq_length") or own)
        )
        self.dimensions = int(model.config.hidden_size)
        self._one_at_a_time = threading.Lock()
        self.load_s = time.perf_counter() - started

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """See capabilities.Embeds. No text is truncated."""
        encodings = self._tokenizer.encode_batch(list(texts))
        for index, encoding in enumerate(encodings):
            if len(encoding.ids) > self.context:
                size = f"text {index + 1} is {len(encoding.ids):,} tokens"
                raise ContextOverflow(f"{size}; {self._name} reads {self.context:,}")
        # Texts of like length together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda index: len(encodings[index].ids))
        vectors: list[list[float]] = [[] for _ in texts]
        with self._one_at_a_time, memory_check.reported(), torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                for index, vector in zip(
                    part,
                    self._forward([encodings[index].ids for index in part]).tolist(),
                    strict=True,
                ):
                    vectors[index] = vector
        return vectors, sum(len(encoding.ids) for encoding in encodings)

    def _forward(self, rows: list[list[int]]) -> Tensor:
        """Vectors [n, width] of n token id lists."""
        width = max(map(len, rows))
        mask = torch.tensor(
            [[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device
        )
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self._device)
        hidden = self._loaded()(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = _pooled(hidden, mask, self._pool)
        return torch.nn.functional.normalize(vectors, dim=-1) if self._normal else vectors

    def count(self, text: str) -> int:
        self._loaded()
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, prompt: Prompt) -> list[int]:
        self._loaded()
        ids: list[int] = self._tokenizer.encode(prompt.text).ids
        return ids

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        self._loaded()
        raise Mismatch(f"{self._name} embeds text and cannot write any")

    def describe(self) -> str:
        return f"{self._name} fp32 {self._device}"

    def clear_cache(self) -> None:
        """Does nothing: no text is remembered."""

    def unload(self) -> None:
        with self._one_at_a_time:
            self._model = None

    def _loaded(self) -> Any:
        if self._model is None:
            raise Unloaded(self.describe())
        return self._model


def _pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector a text of its tokens' vectors. hidden: [n, T, width], mask: [n, T]"""
    if how == "cls_token":
        return hidden[:, 0]
    if how == "lasttoken":
        return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def _steps(folder: Path) -> tuple[str, bool]:
    """The kind of pooling, and whether vectors are normalised. Raises Mismatch for other steps."""
    steps = read_json_list(folder / "modules.json")
    kinds = [str(step.get("type")).rpartition(".")[2] for step in steps]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds) <= set(_STEPS):
        raise Mismatch(f"{folder.name} uses unsupported steps: {', '.join(kinds)}")
    pooling = read_json(folder / str(steps[1].get("path", "")) / "config.json")
    chosen = [
        name.removeprefix("pooling_mode_")
        for name, on in pooling.items()
        if name.startswith("pooling_mode_") and on is True
    ]
    if chosen not in (["mean_tokens"], ["cls_token"], ["lasttoken"]):
        raise Mismatch(f"{folder.name} uses unsupported pooling: {', '.join(chosen)}")
    return chosen[0], "Normalize" in kinds
