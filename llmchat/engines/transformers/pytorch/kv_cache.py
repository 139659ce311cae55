"""The cache of one text, so that a chat prefills only what is new: keys and values of attention,
states of recurrent blocks.

Which tokens it holds, and whether they fit a prompt, is the caller's business (prompt_caches.py).
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from llmchat.engines.transformers.families.cache_shapes import KeyValues, State
from llmchat.engines.transformers.pytorch.cache_files import (
    DAMAGED,
    CacheFile,
    Header,
    named_states,
    opened,
    write,
)
from llmchat.engines.transformers.pytorch.cache_numbers import numbers_of
from llmchat.engines.transformers.pytorch.state_copies import (
    StateCopies,
    StateCopy,
    copied,
    put_back,
    zero,
)
from llmchat.settings.types import KvKind

Buffers = list[Tensor | None]


class KVCache:
    """For each block of a plan growing buffers [heads, capacity, width] of keys and of values, or a
    state, one flat float32 tensor; see families/cache_shapes.py. dtype: of activations; kind: how
    keys and values are stored (cache_numbers.py).

    `length` of the `capacity` positions are in use. trained: a text with more tokens has other
    rotary frequencies, 0 if there is no such length; is_long: whether these keys have them; text:
    the tokens, kept only if `trained` is not 0 (rereading.py). context: the first tokens that see
    each other, those before `answer_start`, which are kept together or not at all. memory: the
    cache of the encoder whose keys and values cross-attention sees.
    """

    # The first capacity, and the positions that a layout keeps together: capacity is a multiple.
    FIRST = 512
    BLOCK = 1

    def __init__(
        self,
        shapes: Sequence[KeyValues | State | None],
        dtype: torch.dtype,
        device: torch.device,
        trained: int = 0,
        kind: KvKind = "full",
        answer_start: int | None = None,
    ):
        self.length = 0
        self.context = 0
        self._answer_start = answer_start
        self.capacity = 0
        self.shape = tuple(shapes)
        self.has_states = any(isinstance(shape, State) for shape in self.shape)
        self.state_copies = StateCopies()
        self._mark: StateCopy | None = None
        self.trained, self.is_long = trained, False
        self.text: list[int] = []
        self.memory: KVCache | None = None
        self.kind, self._device = kind, device
        self._numbers = numbers_of(kind, dtype)
        self._keys: Buffers = [None] * len(self.shape)
        self._values: Buffers = [None] * len(self.shape)
        self._states: Buffers = [None] * len(self.shape)

    def reserve(self, length: int) -> None:
        """Make room for `length` positions; at least doubles the buffers that are too small."""
        if length <= self.capacity:
            return
        if not self.capacity:
            self._states = [self._new_state(shape) for shape in self.shape]
        self.capacity = self._whole_blocks(max(length, 2 * self.capacity, self.FIRST))
        for _, buffers in self._sides():
            buffers[:] = self._grown(buffers)

    def append(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [heads, new, width] after the `length` positions in use.

        Returns all of the block, [heads, length + new, width]; `advance` follows the last block.
        """
        end = self.length + keys.shape[1]
        for buffers, new in ((self._keys, keys), (self._values, values)):
            buffer = buffers[block]
            assert buffer is not None
            buffer[:, self.length : end] = self._numbers.stored(new)
        return self.held(block, end)

    def held(self, block: int, end: int) -> tuple[Tensor, Tensor]:
        """The first `end` keys and values of a block, [heads, end, width]."""
        keys, values, shape = self._keys[block], self._values[block], self.shape[block]
        assert keys is not None and values is not None and isinstance(shape, KeyValues)
        widths = shape.key_width, shape.value_width
        pairs = zip((keys, values), widths, strict=True)
        first, second = (self._numbers.numbers(side[:, :end], width) for side, width in pairs)
        return first, second

    def begin(self, ids: Sequence[int]) -> None:
        """Find the context of a text whose first tokens are read next; it is part of them."""
        if not self.length:
            self.context = self._context_of(ids)

    def usable(self, ids: Sequence[int], shared: int) -> int:
        """See executor.HoldsContext."""
        if self._answer_start is None:
            return shared
        return shared if self._context_of(ids) == self.context <= shared else 0

    def see(self, memory: "KVCache") -> None:
        """Let cross-attention see the memories of an encoder, which has read its text."""
        self.memory = memory

    def remembered(self, block: int) -> tuple[Tensor, Tensor]:
        """All keys and values that a Memory block has written, [heads, positions, width]."""
        assert self.memory is not None
        return self.memory.held(block, self.memory.length)

    def state(self, block: int) -> Tensor:
        """The state of a recurrent block, float32, to be changed in place; after `reserve`."""
        state = self._states[block]
        assert state is not None
        return state

    def advance(self, ids: Sequence[int]) -> None:
        """Count the tokens whose keys and values were written in every block."""
        self.length += len(ids)
        if self.trained:
            self.text += ids

    def keep_states(self) -> None:
        """Copy the states, so that `truncate` can go back to here."""
        if self.has_states:
            self.state_copies.keep(self.length, self._states)

    def mark_states(self) -> None:
        """Copy the states until the next mark, for a draft that may be wrong."""
        if self.has_states:
            buffers = self._mark.states if self._mark else copied(self._states)
            put_back(self._states, buffers)
            self._mark = StateCopy(self.length, buffers)

    def thin_states(self) -> None:
        """Drop all copies but those that the next turn is likely to need."""
        self.state_copies.thin()
        self._mark = None

    def reachable(self, length: int) -> int:
        """How many positions `truncate(length)` would keep."""
        if length >= self.length or not self.has_states:
            return min(length, self.length)
        copy = self._last_copy(length)
        return copy.length if copy else 0

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` positions; returns how many are left.

        With states these are the ones before the last copy, or none.
        """
        if length < self.length:
            self.length = self._go_back(length) if self.has_states else self._whole(length)
            del self.text[self.length :]
        return self.length

    def clear(self) -> None:
        """Forget the text, also where a pass that was interrupted has changed some states."""
        self.length, self.context, self.text, self.is_long = 0, 0, [], False
        self.state_copies, self._mark = StateCopies(), None
        zero(self._states)

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Hold the first `length` positions of another cache, and nothing else.

        With states these are the ones before its last copy, or none.
        """
        self.clear()
        if self.has_states and not (length := self._copy_states(other, length)):
            return
        length, self.context = other._whole(length), other.context
        self.reserve(length)
        for (_, target), (_, source) in zip(self._sides(), other._sides(), strict=True):
            self._copy(source, target, length)
        self.length, self.text, self.is_long = length, other.text[:length], other.is_long

    def save(self, path: Path, ids: list[int], key: str) -> None:
        """Write what the cache holds of `ids` to a file. With states, they are its whole text.

        It appears when it is complete, and only its owner can read it. key: identifies the model
        and adapters that they belong to.
        """
        tensors = {
            f"{side}.{block}": self._load_positions(side, buffer, len(ids)).contiguous()
            for side, buffers in self._sides()
            for block, buffer in enumerate(buffers)
            if buffer is not None
        }
        tensors |= named_states(self._states, self.state_copies)
        copies = [copy.length for copy in self.state_copies]
        write(path, tensors, Header(key, self._layout(), ids, self.is_long, copies))

    def load(self, path: Path, key: str) -> list[int]:
        """Hold what `save` wrote; returns the token ids.

        [] if there is no such file, or if it is damaged or of another model.
        """
        self.clear()
        try:
            with opened(path) as file:
                header = file.header
                if (header.key, header.layout) != (key, self._layout()) or not header.ids:
                    return []
                self._load_tensors(file, len(header.ids))
        except DAMAGED:
            self.clear()
            return []
        self.is_long = header.is_long
        self.begin(header.ids)
        self.advance(header.ids)
        return header.ids

    def _load_tensors(self, file: CacheFile, count: int) -> None:
        self.reserve(count)
        for side, buffers in self._sides():
            for block, buffer in enumerate(buffers):
                if buffer is not None:
                    shape = buffer.shape[0], count, buffer.shape[2]
                    self._store_positions(side, buffer, file.tensor(f"{side}.{block}", shape))
        for copy in file.copies(self._states):
            self.state_copies.keep(copy.length, copy.states)
        put_back(file.states(self._states), self._states)

    def _layout(self) -> str:
        """What a file must have been written with."""
        return f"{self.shape!r}{self._numbers.name}"

    def _sides(self) -> tuple[tuple[str, Buffers], tuple[str, Buffers]]:
        return ("keys", self._keys), ("values", self._values)

    def _load_positions(self, side: str, buffer: Tensor, count: int) -> Tensor:
        """The first positions of a buffer: [heads, count, width]."""
        return buffer[:, :count]

    def _store_positions(self, side: str, buffer: Tensor, positions: Tensor) -> None:
        """Overwrite the first positions of a buffer with [heads, count, width]."""
        buffer[:, : positions.shape[1]] = positions

    def _new_state(self, shape: KeyValues | State | None) -> Tensor | None:
        if not isinstance(shape, State):
            return None
        count = sum(prod(part) for part in shape.parts)
        return torch.zeros(count, dtype=torch.float32, device=self._device)

    def _context_of(self, ids: Sequence[int]) -> int:
        start = self._answer_start
        return 0 if start is None or start not in ids else list(ids).index(start)

    def _whole(self, length: int) -> int:
        """length, or 0 for less than the context."""
        return length if length >= self.context else 0

    def _go_back(self, length: int) -> int:
        """Put the states back to the last copy; returns its length."""
        copy = self._last_copy(length)
        self.state_copies.cut(length)
        if self._mark and self._mark.length > length:
            self._mark = None
        if copy is None:
            zero(self._states)
            return 0
        put_back(copy.states, self._states)
        return copy.length

    def _last_copy(self, length: int) -> StateCopy | None:
        """The last copy after at most `length` tokens, the mark included."""
        found = [self.state_copies.last(length), self._mark]
        copies = [copy for copy in found if copy is not None and copy.length <= length]
        return max(copies, key=lambda copy: copy.length, default=None)

    def _copy_states(self, other: "KVCache", length: int) -> int:
        """Take over the last states of another cache that are not beyond `length`."""
        if other.length <= length:
            other.keep_states()
        copy = other.state_copies.last(length)
        if copy is None:
            return 0
        self.reserve(copy.length)
        put_back(copy.states, self._states)
        for one in other.state_copies:
            if one.length <= copy.length:
                self.state_copies.keep(one.length, one.states)
        return copy.length

    def _grown(self, old: Buffers) -> Buffers:
        side = "key_width" if old is self._keys else "value_width"
        shapes = [
            (shape.heads, self.capacity, self._numbers.width(getattr(shape, side)))
            for shape in self.shape
            if isinstance(shape, KeyValues)
        ]
        new = iter(self._empty(shapes))
        grown = [next(new) if isinstance(shape, KeyValues) else None for shape in self.shape]
        self._copy(old, grown, self.length)
        return grown

    def _empty(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Buffers of these shapes."""
        options = {"dtype": self._numbers.dtype, "device": self._device}
        return [torch.empty(shape, **options) for shape in shapes]

    def _copy(self, sources: Buffers, targets: Buffers, length: int) -> None:
        end = self._whole_blocks(length)
        for source, target in zip(sources, targets, strict=True):
            if source is not None and target is not None:
                target[:, :end] = source[:, :end]

    def _whole_blocks(self, length: int) -> int:
        """length, rounded up to whole blocks."""
        return -(-length // self.BLOCK) * self.BLOCK
