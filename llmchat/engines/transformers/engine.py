"""The engine that runs a checkpoint itself, with its own decode loop and without threads.

Each call of the model takes every answer in progress a step further (continuous batching, Yu et
al. 2022, "Orca"). Prompt caches keep what was read, so that a prompt reads only what follows the
longest prefix it shares with one of them.
"""

import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from llmchat.engines import Adapters, Chunk, Finish, Prefill, Sampling, Token, Unloaded
from llmchat.engines.transformers import memory_check, scoring
from llmchat.engines.transformers.draft_model import DraftModel, check_draft
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.executor import Forward
from llmchat.engines.transformers.generation import RunningAnswer
from llmchat.engines.transformers.live_lora import (
    LiveAdapter,
    LiveAdapters,
    check_adaptable,
    open_live,
)
from llmchat.engines.transformers.loading import LoadedModel, Source, device_named, load
from llmchat.engines.transformers.prefill import REPORTED_FROM, Chunks, border
from llmchat.engines.transformers.prompt_caches import Slots
from llmchat.engines.transformers.prompt_lookup import Drafts, PromptLookup
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.sampler import Sampler
from llmchat.engines.transformers.vocabulary import check_bias, check_ids, vocabulary_of
from llmchat.engines.transformers.weights import with_scales
from llmchat.errors import ContextOverflow, UsageError
from llmchat.memory_estimate import parameters
from llmchat.prompt import Prompt
from llmchat.settings.types import KvKind, Weights

# Bytes of keys and values of all texts that are remembered and not being answered.
IDLE_CACHE_BYTES = 1_000_000_000


class TransformersEngine:
    """A base checkpoint with adapters merged, its linears as `weights`, on `device`, its KV cache
    as `kv`.

    device: "auto" for the GPU if there is one. slots: the most answers in progress at once, and
    the most texts that are remembered. drafts: use prompt-lookup decoding where the executor is
    exact. prepared: a folder with base and adapters merged as int8, whose file is mapped instead
    of theirs. kernels: a folder for the compiled step; without it, or without a compiler, torch
    runs the model. proven: a file that records that this model passed `modules.self_test`, written
    when it does; without it each load runs the test. draft: an engine with a small model that
    drafts for this one (draft_model.py). weights_name: of weights that a file has quantised, for
    `describe`. Raises Mismatch for a model that fails the test, and for
    a draft model that does not fit.
    """

    resumes = True
    follows_grammars = True

    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path] = (),
        *,
        weights: Weights = "int8",
        kv: KvKind = "full",
        device: str = "auto",
        name: str = "",
        adapter_scale: float = 1.0,
        trust_remote_code: bool = False,
        slots: int = 1,
        drafts: bool = True,
        prepared: Path | None = None,
        kernels: Path | None = None,
        proven: Path | None = None,
        draft: "TransformersEngine | None" = None,
        weights_name: str = "",
    ):
        started = time.perf_counter()
        self._name = name or base.name
        self._weights, self._kv = weights_name or weights, kv
        self._device = device_named(device)
        loaded = load(
            Source(
                base, adapters, weights, self._device, adapter_scale, trust_remote_code, prepared,
                kernels, proven, kv,
            )
        )  # fmt: skip
        self._loaded: LoadedModel | None = loaded
        self.context = loaded.context
        self._vocabulary = vocabulary_of(loaded.shapes)
        most = IDLE_CACHE_BYTES // max(1, loaded.token_bytes)
        self._slots = Slots(loaded.forward.new_cache, slots, most)
        self._chunks = Chunks(loaded.forward, parameters(loaded.shapes), self.context)
        self.drafts = drafts
        self._draft = draft.drafting_for(loaded) if draft else None
        self.adapters: dict[str, LiveAdapter] = {}
        self._merged = with_scales(list(adapters), adapter_scale)
        self._chosen: Adapters = ()
        self.load_s = time.perf_counter() - started

    @property
    def slots(self) -> int:
        return self._slots.limit

    @slots.setter
    def slots(self, count: int) -> None:
        self._slots.limit = count
        if self._draft:
            self._draft.slots.limit = count

    def describe(self) -> str:
        cached = "" if self._kv == "full" else f" kv {self._kv}"
        drafts = self._described_draft()
        return f"{self._name} {self._weights}{cached} {self._device}{drafts}"

    def _described_draft(self) -> str:
        if not self._draft:
            return ""
        kept = self._draft.right / self._draft.proposed if self._draft.proposed else 0
        return f", drafts by {self._draft.name}" + (f" ({kept:.0%} kept)" if kept else "")

    def count(self, text: str) -> int:
        return self._model.tokens.count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self._model.tokens.encode(prompt)

    def prompt_of(self, ids: Sequence[int]) -> Prompt:
        """See capabilities.TakesTokenIds."""
        check_ids(ids, self._vocabulary)
        return Prompt(self._model.tokens.spelt(ids), (), bos=False, ids=tuple(ids))

    def clear_cache(self) -> None:
        self._slots.clear()

    def unload(self) -> None:
        self._slots.release()
        if self._draft:
            self._draft.slots.release()
        self.adapters, self._draft = {}, None
        self._loaded = None

    # Answers

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> RunningAnswer:
        """See capabilities.Batches."""
        model, ids = self._model, self.encode(prompt)
        check_ids(ids, self._vocabulary)
        check_bias(sampling.logit_bias, self._vocabulary)
        if len(ids) >= self.context:
            raise ContextOverflow(
                f"the prompt is {len(ids):,} tokens; the model holds {self.context:,}"
            )
        apart = model.forward.separate_encoder
        room = self.context if apart else self.context - len(ids)
        stop_ids = frozenset() if sampling.ignore_eos else model.tokens.stop_ids(prompt)
        look = partial(self._look, rivals=sampling.logprobs - 1) if sampling.logprobs else None
        return RunningAnswer(
            ids,
            min(sampling.max_tokens or room, room),
            stop_ids,
            (*prompt.stops, *sampling.stops),
            model.tokens.decoder(prompt.shown_tokens),
            self._sampler(sampling, [] if apart else ids),
            self._drafts(ids) if self.drafts and model.forward.exact else None,
            self._live(self._chosen if adapters is None else adapters),
            look,
            model.guides.guide(prompt, sampling, stop_ids),
            apart,
            border(ids, stop_ids),
        )

    def _drafts(self, ids: list[int]) -> Drafts:
        return self._draft.begin(ids) if self._draft else PromptLookup(ids)

    def drafting_for(self, large: LoadedModel) -> DraftModel:
        """This model as the draft model of a larger one. Raises Mismatch if it cannot be."""
        check_draft(self._model, large, self._name)
        known = min(self._vocabulary, vocabulary_of(large.shapes))
        return DraftModel(self._forward, self._slots, known, self._name)

    @property
    def draft(self) -> DraftModel | None:
        """What drafts for this model, beside repeated text."""
        return self._draft

    def _sampler(self, sampling: Sampling, prompt_ids: list[int]) -> Sampler:
        dry = None
        if sampling.dry_multiplier:
            dry = Dry(sampling, prompt_ids, self._model.tokens.spelling)
        return self._forward.sampler(sampling, prompt_ids, self._device, dry)

    def step(self, answers: Sequence[RunningAnswer]) -> list[list[Chunk | Finish]]:
        """See capabilities.Batches. Raises UsageError for more answers than `slots`, and CannotGoOn
        for a single answer; beside others, which go on, such an answer is cut.
        """
        self._seat(answers)
        with memory_check.reported(), torch.inference_mode():
            inputs = self._chunks.plan(answers)
            logits = self._forward.run([one for one in inputs if one is not None])
        rows = iter(logits)
        events = [
            [] if one is None else answer.take(one, next(rows))
            for answer, one in zip(answers, inputs, strict=True)
        ]
        if len(answers) == 1 and answers[0].failure:
            raise answers[0].failure
        return events

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        answer = self.begin(prompt, sampling)
        try:
            self._seat([answer])
            reported = len(answer.unread) > REPORTED_FROM
            while not answer.done:
                if reported and answer.reading:
                    yield Prefill(answer.read, answer.prompt_tokens)
                before, started = answer.read, time.perf_counter()
                yield from self.step([answer])[0]
                if answer.reading:
                    self._chunks.measured(answer.read - before, time.perf_counter() - started)
        finally:
            answer.close()

    def _seat(self, answers: Sequence[RunningAnswer]) -> None:
        """Give each answer that begins a slot: the one that holds most of its prompt."""
        with memory_check.reported(), torch.inference_mode():
            for answer in answers:
                if answer.slot is None:
                    slot = self._slots.take(answer.prompt, answer.adapters)
                    if slot is None:
                        raise UsageError(f"more than {self._slots.limit} answers at once")
                    answer.start(slot, self._slots.give_back)

    def _look(self, token: int, logits: Tensor, rivals: int) -> Token:
        """A token with its log-probability and those of the most likely ones. logits: [vocab]"""
        scores = logits.float().log_softmax(-1)
        values, ids = scores.topk(min(rivals, len(scores)))
        spelling = self._model.tokens.spelling
        others = zip(ids.tolist(), values.tolist(), strict=True)
        likeliest = tuple((spelling(other), score) for other, score in others)
        return Token(token, spelling(token), float(scores[token]), likeliest)

    # Scores

    def logits(self, ids: list[int]) -> Tensor:
        """See capabilities.Scores."""
        check_ids(ids, self._vocabulary)
        return scoring.next_logits(self._forward, self._slots, ids, self._live(self._chosen))

    def score(self, ids: list[int]) -> Tensor:
        """See capabilities.Scores. Raises UsageError for an encoder-decoder."""
        if self._forward.separate_encoder:
            raise UsageError(
                f"{self._name} cannot score a text: its answers do not continue what it reads"
            )
        check_ids(ids, self._vocabulary)
        return scoring.log_likelihoods(self._forward, ids, self._live(self._chosen))

    # The cache on disk

    @property
    def held_tokens(self) -> int:
        """See capabilities.SavesCache."""
        slot = self._slots.latest()
        return slot.cache.length if slot else 0

    @property
    def token_bytes(self) -> int:
        """See capabilities.SavesCache."""
        return self._model.token_bytes

    def save_cache(self, path: Path, key: str) -> int:
        """See capabilities.SavesCache. On a GPU, prefilling again is faster than a disk. What was
        read with live adapters is not saved.
        """
        slot = self._slots.latest()
        if slot is None or self._device.type != "cpu" or slot.adapters:
            return 0
        if not isinstance(slot.cache, KVCache) or not slot.keep(len(slot.ids)):
            return 0
        slot.cache.save(path, slot.ids, key)
        return len(slot.ids)

    def load_cache(self, path: Path, key: str) -> int:
        """See capabilities.SavesCache."""
        if self._device.type != "cpu":
            return 0
        with torch.inference_mode():
            slot = self._slots.take([], ())
            if slot is None:
                return 0
            slot.ids = slot.cache.load(path, key) if isinstance(slot.cache, KVCache) else []
            self._slots.give_back(slot)
        return len(slot.ids)

    # Adapters

    def load_adapter(self, name: str, folder: Path) -> None:
        """See capabilities.TakesAdapters."""
        model = self._model
        adapter = open_live(
            name, folder, model.config, model.shapes, model.forward.dtype, self._device
        )
        check_adaptable(adapter, folder, model.forward.adaptable)
        self.adapters[name] = adapter

    def choose(self, adapters: Adapters) -> None:
        """Apply these live adapters to the next answers, added up; () for the weights alone.

        Raises UsageError for one that is not loaded.
        """
        self._live(adapters)
        self._chosen = adapters

    def adapt(self, wanted: Sequence[tuple[Path, float]], name: str) -> None:
        """See capabilities.TakesAdapters. A merged adapter is subtracted by its own matrices, which
        leaves its rounding.
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

    def _live(self, adapters: Adapters) -> LiveAdapters:
        for name, _ in adapters:
            if name not in self.adapters:
                loaded = ", ".join(self.adapters) or "none"
                raise UsageError(f"no adapter `{name}` is loaded", f"loaded adapters: {loaded}")
        return tuple((self.adapters[name], strength) for name, strength in adapters if strength)

    @property
    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise Unloaded(self.describe())
        return self._loaded

    @property
    def _forward(self) -> Forward:
        return self._model.forward
