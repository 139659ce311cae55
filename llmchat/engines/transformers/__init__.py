"""The engine that runs a checkpoint itself, in torch. Its own decode loop, no `generate()`, no threads.

Several answers may be under way at once; each pass through the model takes all of them a step further (continuous batching, Yu et al. 2022,
"Orca"). A cache keeps what was read, so that a prompt reads only what it adds to the longest common prefix.
"""

import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines import Adapters, Chunk, Finish, Prefill, Sampling, Token, Unloaded
from llmchat.engines.tokenizer import Tokens, context_of, read_json
from llmchat.engines.transformers import compiled, memory_check
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families.llama import check_ids, vocabulary_of
from llmchat.engines.transformers.generation import RunningAnswer
from llmchat.engines.transformers.live_lora import (
    LiveAdapter,
    LiveAdapters,
    check_adaptable,
    open_live,
)
from llmchat.engines.transformers.modules import self_test
from llmchat.engines.transformers.modules.causal import GeneralForward
from llmchat.engines.transformers.prefill import (
    PREFILL_CHUNK,
    SHARED_CHUNK,
    TOLD_FROM,
    first_chunk,
    prefill_chunk,
)
from llmchat.engines.transformers.prepared_checkpoint import open_prepared
from llmchat.engines.transformers.prompt_caches import Slots
from llmchat.engines.transformers.prompt_lookup import Drafts
from llmchat.engines.transformers.pytorch import cuda, forward
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.sampler import Sampler
from llmchat.engines.transformers.tied_heads import with_ties
from llmchat.engines.transformers.weights import Tensors, open_tensors, with_scales
from llmchat.errors import ContextOverflow, UsageError
from llmchat.memory_estimate import kv_bytes, parameters
from llmchat.parse_guard import reading
from llmchat.prompt import Prompt
from llmchat.settings.types import Weights

# Tokens scored at once: their logits are SCORE_CHUNK x vocabulary numbers in fp32.
SCORE_CHUNK = 256
# Keys and values of texts that are not being answered, all together.
WAITING_BYTES = 1_000_000_000


class TransformersEngine:
    """A base checkpoint with adapters merged, its linears as `weights`, on `device` ("auto": the GPU where there is one).

    slots: the answers that may be under way at once, and the texts that are remembered. drafts: let repeated text be drafted from what was said
    before; it changes no token, and is done only where the forward pass gives the same numbers to the bit for one row and for many.
    prepared: a folder with base and adapters in one, int8, whose file is mapped in place of theirs. kernels: a folder for the step that is
    compiled for this processor; without it, or without a compiler, plain torch does the same. proven: a file that says that this model passed the
    test of selftest.py, which is made when it does; without one each load tests it. Raises Mismatch for a model that fails it.
    """

    resumes = True

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
        slots: int = 1,
        drafts: bool = True,
        prepared: Path | None = None,
        kernels: Path | None = None,
        proven: Path | None = None,
    ):
        started = time.perf_counter()
        self._name = name or base.name
        self._weights = weights
        self._device = _device(device)
        with reading(f"the model in {base.name}"):
            self._tokenizer: Tokens | None = Tokens(base)
            self._config = modern_config(read_json(base / "config.json"))
            self.context = context_of(base)
            self._reads_apart = bool(self._config.get("is_encoder_decoder"))
            tensors: Tensors = (
                open_prepared(prepared, self._config)
                if prepared
                else open_tensors(base, adapters, adapter_scale)
            )
            self._config = with_ties(self._config, tensors.untied)
            self._shapes, self._vocabulary = tensors.shapes, vocabulary_of(tensors.shapes)
            memory_check.check(tensors.shapes, weights, self._device, mapped=prepared is not None)
            self._executor: Forward | None = _load(
                base, tensors, self._config, weights, self._device, trust_remote_code, kernels
            )
        if isinstance(self._forward, GeneralForward):
            self_test.check(
                self._forward,
                self.encode(Prompt(self_test.TEXT, ())),
                str(self._config.get("model_type")),
                proven,
            )
        self._whole = bool(getattr(self._forward, "whole", False))
        # A forward pass that can run ahead brings a sampler that tells it where to.
        self._sampler: Callable[[Sampling, list[int], torch.device], Sampler] = getattr(
            self._forward, "sampler", Sampler
        )
        self._slots = Slots(
            self._forward.new_cache, slots, WAITING_BYTES // max(1, kv_bytes(self._config, 1))
        )
        self.drafts = drafts
        self.adapters: dict[str, LiveAdapter] = {}
        self._merged = with_scales(list(adapters), adapter_scale)
        self._chosen: Adapters = ()
        self._chunk = (
            first_chunk(parameters(tensors.shapes)) if self._forward.exact else PREFILL_CHUNK
        )
        self.load_s = time.perf_counter() - started

    @property
    def slots(self) -> int:
        return self._slots.limit

    @slots.setter
    def slots(self, count: int) -> None:
        self._slots.limit = count

    def count(self, text: str) -> int:
        return self._tokens.count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self._tokens.encode(prompt)

    def describe(self) -> str:
        return f"{self._name} {self._weights} {self._device}"

    def load_adapter(self, name: str, folder: Path) -> None:
        """Put an adapter beside the weights, to be chosen by its name. Raises Mismatch where it does not fit the base."""
        adapter = open_live(
            name, folder, self._config, self._shapes, self._forward.dtype, self._device
        )
        check_adaptable(adapter, folder, getattr(self._forward, "adaptable", None))
        self.adapters[name] = adapter

    def prompt_of(self, ids: Sequence[int]) -> Prompt:
        """The prompt of token ids, exactly these. Raises Mismatch for an id that the model does not have."""
        check_ids(ids, self._vocabulary)
        return Prompt(self._tokens.spelt(ids), (), bos=False, ids=tuple(ids))

    def choose(self, adapters: Adapters) -> None:
        """The live adapters of the answers to come, stacked; () for the weights alone. Raises UsageError for one that is not loaded."""
        self._live(adapters)
        self._chosen = adapters

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> RunningAnswer:
        """An answer about to be made, see capabilities.Batches."""
        ids = self.encode(prompt)
        check_ids(ids, self._vocabulary)
        if len(ids) >= self.context:
            raise ContextOverflow(
                f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}"
            )
        room = self.context if self._reads_apart else self.context - len(ids)
        return RunningAnswer(
            ids,
            min(sampling.max_tokens or room, room),
            frozenset() if sampling.ignore_eos else self._tokens.stop_ids(prompt),
            (*prompt.stops, *sampling.stops),
            self._tokens.decoder(),
            self._sampler(sampling, [] if self._reads_apart else ids, self._device),
            Drafts(ids) if self.drafts and self._forward.exact else None,
            self._live(self._chosen if adapters is None else adapters),
            partial(self._look, rivals=sampling.logprobs - 1) if sampling.logprobs else None,
        )

    def step(self, answers: Sequence[RunningAnswer]) -> list[list[Chunk | Finish]]:
        """One pass through the model for all of these, see capabilities.Batches. At most `slots` of them may have been begun and not closed."""
        self._seat(answers)
        with memory_check.reported(), torch.inference_mode():
            parts = self._parts(answers)
            logits = self._forward.run([part for part in parts if part is not None])
        rows = iter(logits)
        return [
            [] if part is None else answer.take(part, next(rows))
            for answer, part in zip(answers, parts, strict=True)
        ]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        answer = self.begin(prompt, sampling)
        try:
            self._seat([answer])
            told = len(answer.unread) > TOLD_FROM
            while not answer.done:
                if told and answer.reading:
                    yield Prefill(answer.read, answer.prompt_tokens)
                before, started = answer.read, time.perf_counter()
                yield from self.step([answer])[0]
                if answer.reading and self._forward.exact:
                    self._chunk = prefill_chunk(
                        (answer.read - before) / (time.perf_counter() - started)
                    )
        finally:
            answer.close()

    def _seat(self, answers: Sequence[RunningAnswer]) -> None:
        """Give each answer that begins a slot, the one that holds most of its prompt."""
        with memory_check.reported(), torch.inference_mode():
            for answer in answers:
                if answer.slot is None:
                    slot = self._slots.take(answer.prompt, answer.adapters)
                    if slot is None:
                        raise UsageError(f"more than {self._slots.limit} answers at once")
                    answer.start(slot, self._slots.give_back)

    def logits(self, ids: list[int]) -> Tensor:
        """Logits [vocab] of the token after `ids`, through the cache like an answer's."""
        check_ids(ids, self._vocabulary)
        slot = self._slots.take(ids, self._live(self._chosen))
        if slot is None:
            raise UsageError("the engine is busy")
        try:
            size = len(ids) if self._reads_apart or self._whole else PREFILL_CHUNK
            for start in range(slot.cache.length, len(ids), size):
                chunk = ids[start : start + size]
                with memory_check.reported(), torch.inference_mode():
                    logits = self._forward.run(
                        [SequenceInput(slot.cache, chunk, adapters=slot.adapters)]
                    )[0]
                slot.ids += chunk
        finally:
            self._slots.give_back(slot)
        return logits[-1]

    def score(self, ids: list[int]) -> Tensor:
        """Log-probabilities [T - 1] of each token of `ids` after the ones before it. Starts with an empty cache.

        Raises UsageError for an encoder-decoder, whose text is not what it reads.
        """
        if self._reads_apart:
            raise UsageError(
                f"{self._name} cannot score a text: it reads a question and writes an answer, and continues neither"
            )
        check_ids(ids, self._vocabulary)
        cache, adapters, scores = self._forward.new_cache(), self._live(self._chosen), []
        size = len(ids) if self._whole else SCORE_CHUNK
        for start in range(0, len(ids) - 1, size):
            chunk, following = (
                ids[start:-1][:size],
                torch.tensor(ids[start + 1 :][:size], device=self._device),
            )
            with memory_check.reported(), torch.inference_mode():
                logits = self._forward.run(
                    [SequenceInput(cache, chunk, all_logits=True, adapters=adapters)]
                )[0].float()
            scores.append(logits.log_softmax(-1).gather(1, following[:, None])[:, 0])
        return torch.cat(scores)

    @property
    def held_tokens(self) -> int:
        """Tokens of the text that was read last."""
        slot = self._slots.latest()
        return slot.cache.length if slot else 0

    def save_cache(self, path: Path, key: str) -> int:
        """Keep on disk what was read last, for `load_cache` in another process; returns its tokens, 0 where this model's cache cannot be kept.

        Not on a GPU: reading again is faster there than a disk. Keys and values of live adapters are not kept.
        """
        slot = self._slots.latest()
        if (
            slot is None
            or self._device.type != "cpu"
            or slot.adapters
            or not isinstance(slot.cache, KVCache)
            or not slot.ids
        ):
            return 0
        slot.cache.save(path, slot.ids[: slot.cache.length], key)
        return min(slot.cache.length, len(slot.ids))

    def load_cache(self, path: Path, key: str) -> int:
        """Go on from what `save_cache` kept under the same key; returns its tokens, 0 where there is nothing that fits."""
        if self._device.type != "cpu":
            return 0
        with torch.inference_mode():
            slot = self._slots.take([], ())
            if slot is None:
                return 0
            slot.ids = slot.cache.load(path, key) if isinstance(slot.cache, KVCache) else []
            self._slots.give_back(slot)
        return len(slot.ids)

    def adapt(self, wanted: Sequence[tuple[Path, float]], name: str) -> None:
        """Go on as if it had been loaded with these adapters, but without loading weights. Raises Mismatch where they cannot be live.

        What was merged is taken out again by its own matrices; what is left of it is rounding.
        """
        strengths = {folder: -strength for folder, strength in self._merged}
        for folder, strength in wanted:
            strengths[folder] = strengths.get(folder, 0.0) + strength
        changes = {folder: strength for folder, strength in strengths.items() if strength}
        for folder in changes:
            if str(folder) not in self.adapters:
                self.load_adapter(str(folder), folder)
        self.choose(tuple((str(folder), strength) for folder, strength in changes.items()))
        self._name = name

    def clear_cache(self) -> None:
        self._slots.clear()

    def unload(self) -> None:
        self._slots.release()
        self.adapters = {}
        self._executor = self._tokenizer = None

    @property
    def _forward(self) -> Forward:
        if self._executor is None:
            raise Unloaded(self.describe())
        return self._executor

    @property
    def _tokens(self) -> Tokens:
        if self._tokenizer is None:
            raise Unloaded(self.describe())
        return self._tokenizer

    def _parts(self, answers: Sequence[RunningAnswer]) -> list[SequenceInput | None]:
        """What each answer reads in the next pass: the first prompts as much as there is room for, so that one is done before the next begins."""
        if self._reads_apart or self._whole:
            return [answer.part(self.context, len(answers)) for answer in answers]
        alone = all(answer.reading for answer in answers)
        room = self._chunk if alone else SHARED_CHUNK
        parts: list[SequenceInput | None] = []
        for answer in answers:
            part = (
                answer.part(room if answer.reading else PREFILL_CHUNK, len(answers))
                if room or not answer.reading
                else None
            )
            room -= len(part.ids) if part is not None and answer.reading else 0
            parts.append(part)
        return parts

    def _look(self, token: int, logits: Tensor, rivals: int) -> Token:
        """What is told of a token when log-probabilities are asked for. logits: [vocab]"""
        scores = logits.float().log_softmax(-1)
        values, ids = scores.topk(min(rivals, len(scores)))
        others = zip(ids.tolist(), values.tolist(), strict=True)
        spelling = self._tokens.spelling
        return Token(
            token,
            spelling(token),
            float(scores[token]),
            tuple((spelling(other), score) for other, score in others),
        )

    def _live(self, adapters: Adapters) -> LiveAdapters:
        for name, _ in adapters:
            if name not in self.adapters:
                raise UsageError(
                    f"no adapter `{name}` is loaded",
                    f"there are {', '.join(self.adapters) or 'none'}",
                )
        return tuple((self.adapters[name], strength) for name, strength in adapters if strength)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"there is no device `{name}`", "cpu, cuda, cuda:1 and mps are devices"
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type):
        raise UsageError(
            f"the device `{name}` is not there: this torch does not see it",
            "--device cpu runs without one",
        )
    return device


def _load(
    base: Path,
    tensors: Tensors,
    config: dict[str, Any],
    weights: Weights,
    device: torch.device,
    trust_remote_code: bool,
    kernels: Path | None,
) -> Forward:
    with memory_check.reported(), torch.inference_mode():
        spread = _spread_over_gpus(tensors.shapes, weights, device)
        if forward.supports(config) and spread is None:
            on_cpu = weights == "int8" and device.type == "cpu"
            library = (
                compiled.find_kernels(kernels)
                if kernels and on_cpu and compiled.supports(config)
                else None
            )
            if library:
                return compiled.CompiledForward(config, tensors, library)
            return _lean(weights, device)(config, tensors, weights, device)
        if config.get("is_encoder_decoder"):
            from llmchat.engines.transformers.modules.encoder_decoder import EncoderDecoderForward

            return EncoderDecoderForward(base, config, tensors, weights, device)
        try:
            return GeneralForward(base, config, tensors, weights, device, spread, trust_remote_code)
        except (
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            AssertionError,
            NotImplementedError,
            ValueError,
        ) as error:
            raise self_test.refusal(str(config.get("model_type")), error) from error


def _lean(weights: Weights, device: torch.device) -> type[forward.TorchForward]:
    """The forward pass of the Llama family for a device."""
    if weights == "fp32" or not cuda.usable(device):
        return forward.TorchForward
    from llmchat.engines.transformers.pytorch.cuda.graphs import CudaForward

    return CudaForward


def _spread_over_gpus(
    shapes: dict[str, tuple[int, ...]], weights: Weights, device: torch.device
) -> str | None:
    """ "balanced" when the model is too large for one of several GPUs and none was named."""
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return None
    return (
        "balanced" if memory_check.needed(shapes, weights) > torch.cuda.mem_get_info(0)[0] else None
    )
