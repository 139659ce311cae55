"""The contract of executors, which run a loaded model: compiled, PyTorch or modules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.pytorch.sampler import Sampler


class Cache(Protocol):
    """What a model keeps of one text: keys and values, or a recurrent state."""

    @property
    def length(self) -> int:
        """Tokens that were read."""
        ...

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept, possibly fewer."""
        ...


@runtime_checkable
class CopiesPrefix(Protocol):
    """A cache that can take over the beginning of another one."""

    def copy_from(self, other: Any, length: int) -> None:
        """Hold the first `length` tokens of `other`, and nothing else."""
        ...


@runtime_checkable
class HoldsPrompt(Protocol):
    """A cache of a text whose prompt is of use only as a whole, as an encoder reads it."""

    def holds(self, prompt: Sequence[int]) -> bool:
        """Whether `truncate` can go back to all but the last token of this prompt."""
        ...


@runtime_checkable
class HoldsContext(Protocol):
    """A cache of a text whose first tokens may see each other, see Plan.answer_start."""

    def usable(self, ids: Sequence[int], shared: int) -> int:
        """How many of the first `shared` tokens, which `ids` begins with, that text can use."""
        ...


@runtime_checkable
class KeepsStates(Protocol):
    """A cache that may hold states of recurrent blocks. These can only go back to where they were
    copied, so that `truncate` may keep fewer tokens than asked.
    """

    has_states: bool

    def keep_states(self) -> None:
        """Copy the states as they are now, in bounded memory: old copies are thinned out."""
        ...

    def mark_states(self) -> None:
        """Copy the states until the next mark, for a draft that may be wrong."""
        ...

    def thin_states(self) -> None:
        """Drop all copies but those that the next turn is likely to need."""
        ...

    def reachable(self, length: int) -> int:
        """How many tokens `truncate(length)` would keep."""
        ...


@dataclass(frozen=True)
class SequenceInput:
    """Tokens of one text to read, after those in its cache.

    all_logits: whether to return the logits after each token, instead of the last one only.
    adapters: the live adapters that apply to this text. whole: the tokens of the whole text if they
    are known already, for frequencies that depend on its length.
    """

    cache: Any
    ids: list[int]
    all_logits: bool = False
    adapters: LiveAdapters = ()
    whole: int = 0


class Forward(Protocol):
    """A loaded model: token ids in, logits out. An executor derives from it for the defaults.

    batches: reading several texts together is faster than one after the other. exact: the logits of
    a token are the same to the bit whatever is read with it, as prompt-lookup decoding requires.
    separate_encoder: a prompt is read by an encoder, and the answer does not continue it.
    whole_context: the tokens of a prompt see each other (Plan.answer_start).
    adaptable: names of the linears that live adapters can change; None for all.
    """

    batches: bool = False
    exact: bool = False
    separate_encoder: bool = False
    whole_context: bool = False
    adaptable: frozenset[str] | None = None
    # The type of activations.
    dtype: torch.dtype

    @property
    def reads_at_once(self) -> bool:
        """Whether a prompt must be read in one call: read in two, its logits would differ."""
        return self.separate_encoder or self.whole_context

    def new_cache(self) -> Cache: ...

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """Read the tokens of each text after those in its cache.

        Returns the logits of each: [1, vocab] after its last token, or [T, vocab] with all_logits.
        """
        ...

    def sampler(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        dry: Dry | None = None,
    ) -> Sampler:
        """A sampler for one answer. An executor that can run ahead brings its own."""
        return Sampler(sampling, prompt_ids, device, dry)
