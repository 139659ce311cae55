"""The engine that runs a checkpoint itself, in torch. Its own decode loop, no `generate()`, no threads.

It keeps the token ids whose keys and values are in the cache, and reads only what a prompt adds to their longest common prefix.
"""

import time
from collections.abc import Generator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llmchat.engines import Chunk, Finish, Sampling, Weights
from llmchat.engines.text import StopFilter
from llmchat.engines.tokens import Tokens, context_of, read_json
from llmchat.engines.transformers import llama, memory
from llmchat.engines.transformers.layout import modern_config
from llmchat.engines.transformers.sampler import Sampler
from llmchat.engines.transformers.weights import Tensors, open_tensors
from llmchat.errors import ContextOverflow, UsageError
from llmchat.prompt import Prompt

# Tokens of a prompt read at once: enough for full matrix speed and for one dequantising of most prompts, few enough that the activations
# stay small. An encoder reads its prompt whole.
PREFILL_CHUNK = 1024
# Tokens scored at once: their logits are SCORE_CHUNK x vocabulary numbers in fp32.
SCORE_CHUNK = 256


class Forward(Protocol):
    """A model with a cache: what llama.py, general.py, recurrent.py and encoder_decoder.py have in common."""

    def read(self, ids: list[int], *, every: bool = False) -> Tensor: ...

    def truncate(self, length: int) -> int: ...


class TransformersEngine:
    """A base checkpoint with adapters merged, its linears as `weights`, on `device` ("auto": the GPU where there is one)."""

    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path] = (),
        *,
        weights: Weights = "int8",
        device: str = "auto",
        name: str = "",
        adapter_scale: float = 1.0,
        trust_remote_code: bool = False,
    ):
        started = time.perf_counter()
        self._name = name or base.name
        self._weights = weights
        self._device = _device(device)
        self._tokens = Tokens(base)
        self.count, self.encode = self._tokens.count, self._tokens.encode
        config = modern_config(read_json(base / "config.json"))
        self.context = context_of(base)
        self._reads_apart = bool(config.get("is_encoder_decoder"))
        self._forward = _load(base, open_tensors(base, adapters, adapter_scale), config, weights, self._device, trust_remote_code)
        self._ids: list[int] = []
        self.load_s = time.perf_counter() - started

    def describe(self) -> str:
        return f"{self._name} {self._weights} {self._device}"

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        started = time.perf_counter()
        ids = self.encode(prompt)
        if len(ids) >= self.context:
            raise ContextOverflow(f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}")
        stop_ids = self._tokens.stop_ids(prompt)
        filtered = StopFilter((*prompt.stops, *sampling.stops))
        decode = self._tokens.decoder()
        sampler = Sampler(sampling, [] if self._reads_apart else ids, self._device)
        room = self.context if self._reads_apart else self.context - len(ids)
        limit = min(sampling.max_tokens or room, room)

        cached = self._keep(ids)
        logits = self._read(ids[cached:])
        prefill_s, first_token, reason, produced = 0.0, 0.0, "length", 0
        while produced < limit:
            token = sampler.choose(logits)
            produced += 1
            if produced == 1:
                first_token = time.perf_counter()
                prefill_s = first_token - started
            if token in stop_ids:
                reason = "stop"
                break
            if text := filtered.feed(decode(token)):
                yield Chunk(text)
            if filtered.stopped:
                reason = "stop"
                break
            if produced < limit:
                logits = self._read([token])
        decode_s = time.perf_counter() - first_token
        if text := filtered.flush():
            yield Chunk(text)
        yield Finish(reason, len(ids), cached, produced, prefill_s, decode_s, sampler.seed)  # type: ignore[arg-type]

    def logits(self, ids: list[int]) -> Tensor:
        """Logits [vocab] of the token after `ids`, through the cache like an answer's."""
        return self._read(ids[self._keep(ids) :])

    def score(self, ids: list[int]) -> Tensor:
        """Log-probabilities [T - 1] of each token of `ids` after the ones before it. Starts with an empty cache.

        Raises UsageError for an encoder-decoder, whose text is not what it reads.
        """
        if self._reads_apart:
            raise UsageError(f"{self._name} cannot score a text: it reads a question and writes an answer, and continues neither")
        self.close()
        scores = []
        for start in range(0, len(ids) - 1, SCORE_CHUNK):
            chunk, following = ids[start:-1][:SCORE_CHUNK], torch.tensor(ids[start + 1 :][:SCORE_CHUNK], device=self._device)
            with memory.reported(), torch.inference_mode():
                logits = self._forward.read(chunk, every=True).float()
            self._ids += chunk
            scores.append(logits.log_softmax(-1).gather(1, following[:, None])[:, 0])
        return torch.cat(scores)

    def close(self) -> None:
        self._forward.truncate(0)
        self._ids.clear()

    def _keep(self, ids: list[int]) -> int:
        """Cut the cache down to what it has in common with `ids`, leaving at least one token to read; returns its length."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._ids, ids[:-1], strict=False)))
        kept = self._forward.truncate(same)
        del self._ids[kept:]
        return kept

    def _read(self, ids: list[int]) -> Tensor:
        with memory.reported(), torch.inference_mode():
            size = len(ids) if self._reads_apart else PREFILL_CHUNK
            for start in range(0, len(ids), size):
                chunk = ids[start : start + size]
                logits = self._forward.read(chunk)
                self._ids += chunk
        return logits[-1]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device `{name}`", "cpu, cuda, cuda:1 and mps are devices") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type):
        raise UsageError(f"the device `{name}` is not there: this torch does not see it", "--device cpu runs without one")
    return device


def _load(base: Path, tensors: Tensors, config: dict[str, Any], weights: Weights, device: torch.device, trust_remote_code: bool) -> Forward:
    memory.check(tensors.shapes, weights, device)
    with memory.reported(), torch.inference_mode():
        spread = _spread_over_gpus(tensors.shapes, weights, device)
        if llama.supports(config) and spread is None:
            return llama.LlamaForward(config, tensors, weights, device)
        if config.get("is_encoder_decoder"):
            from llmchat.engines.transformers.encoder_decoder import EncoderDecoderForward

            return EncoderDecoderForward(base, config, tensors, weights, device)
        if config.get("model_type") == "rwkv":
            from llmchat.engines.transformers.recurrent import RecurrentForward

            return RecurrentForward(base, config, tensors, weights, device)
        from llmchat.engines.transformers.general import GeneralForward

        return GeneralForward(base, config, tensors, weights, device, spread, trust_remote_code)


def _spread_over_gpus(shapes: dict[str, tuple[int, ...]], weights: Weights, device: torch.device) -> str | None:
    """ "balanced" when the model is too large for one of several GPUs and none was named."""
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return None
    return "balanced" if memory.needed(shapes, weights) > torch.cuda.mem_get_info(0)[0] else None
