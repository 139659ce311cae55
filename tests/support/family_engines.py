"""The engine on tiny checkpoints of families, and what transformers computes for them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.modules.causal import ModulesForward
from llmchat.engines.transformers.modules.encoder_decoder import EncoderDecoderForward
from support.architectures import reference
from support.tiny_checkpoints import save_case
from support.tiny_families import CASES

# Longer than every short window, chunk and trained length of the cases.
TEXT = 40


class TinyModel:
    """A tiny checkpoint on disk, opened in several ways."""

    def __init__(self, name: str, folder: Path, kernels: Path):
        self.name = name
        self.kernels = kernels
        self.base = save_case(name, folder)
        # Every position of such a text is turned otherwise when it grows beyond a length.
        kind = (CASES[name].sizes.get("rope_parameters") or {}).get("rope_type")
        self.turns = kind in ("dynamic", "longrope")

    @cached_property
    def exact(self) -> TransformersEngine:
        """In fp32."""
        return self.open(weights="fp32")

    def close_exact(self) -> None:
        """Close the engine in fp32: each of its tensors holds a file descriptor, and select() takes
        no more than 1,024."""
        self.__dict__.pop("exact", None)

    @cached_property
    def rounded(self) -> TransformersEngine:
        """In int8, on the compiled step where it runs this model."""
        return self.open(weights="int8")

    @cached_property
    def reference(self) -> Any:
        """The model of transformers in fp32."""
        return reference(self.base)

    def open(self, *adapters: Path, **options: Any) -> TransformersEngine:
        options = {"device": "cpu", "kernels": self.kernels} | options
        return TransformersEngine(self.base, adapters, **options)

    def ids(self, count: int = TEXT, seed: int = 5) -> list[int]:
        """Tokens that are not special."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(5, 320, (count,), generator=generator).tolist()


def executor(engine: TransformersEngine) -> str:
    """What runs the model: compiled, torch or modules."""
    if isinstance(engine._forward, CompiledForward):
        return "compiled"
    modules = isinstance(engine._forward, ModulesForward | EncoderDecoderForward)
    return "modules" if modules else "torch"


def expected_logits(model: Any, ids: list[int]) -> Tensor:
    """[vocab] after the last token, by transformers; for T5 of the first token it answers."""
    inputs = {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.inference_mode():
        logits: Tensor = model(**inputs).logits[0, -1]
    return logits


def all_expected(model: Any, ids: list[int]) -> Tensor:
    """[T, vocab], by transformers in one read."""
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def new_cache(engine: TransformersEngine, prompt: int = 30) -> Any:
    """A cache that can read any text: an encoder-decoder has read a prompt of `prompt` tokens."""
    cache = engine._forward.new_cache()
    if engine._forward.separate_encoder:
        ids = torch.randint(5, 320, (prompt,), generator=torch.Generator().manual_seed(prompt))
        with torch.inference_mode():
            engine._forward.run([SequenceInput(cache, ids.tolist())])
    return cache


def all_logits(engine: TransformersEngine, ids: list[int], cache: Any = None) -> Tensor:
    """[T, vocab] of our executor, in one read with a new cache or after what `cache` holds."""
    cache = cache or new_cache(engine)
    with torch.inference_mode():
        logits: Tensor = engine._forward.run([SequenceInput(cache, ids, all_logits=True)])[0]
    return logits.float()


def divergence(exact: Tensor, near: Tensor) -> float:
    """The mean KL divergence of distributions of logits [..., vocab], in nats."""
    exact, near = exact.double().log_softmax(-1), near.double().log_softmax(-1)
    return float((exact.exp() * (exact - near)).sum(-1).mean())
