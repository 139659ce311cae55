"""Remembers the texts a model has read, and chooses the cache that a new prompt continues."""

from collections.abc import Callable
from itertools import count, takewhile

from llmchat.engines.transformers.executor import (
    Cache,
    CopiesPrefix,
    HoldsContext,
    HoldsPrompt,
    KeepsStates,
)
from llmchat.engines.transformers.live_lora import LiveAdapters


class Slot:
    """A cache and the token ids in it. A text that starts with them can continue it, with the same
    adapters.
    """

    def __init__(self, cache: Cache):
        self.cache = cache
        self.ids: list[int] = []
        self.adapters: LiveAdapters = ()
        self.used = 0
        self.busy = False

    def common(self, ids: list[int], adapters: LiveAdapters) -> int:
        """The length of the prefix shared with `ids` that the cache can go back to, leaving at
        least one token to read.
        """
        if self.adapters != adapters:
            return 0
        if isinstance(self.cache, HoldsPrompt):
            return len(ids) - 1 if self.cache.holds(ids) else 0
        pairs = zip(self.ids, ids[:-1], strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if isinstance(self.cache, HoldsContext):
            shared = self.cache.usable(ids, shared)
        return self.cache.reachable(shared) if isinstance(self.cache, KeepsStates) else shared

    def keep(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept, possibly fewer."""
        kept = self.cache.truncate(length)
        del self.ids[kept:]
        return kept


class Slots:
    """At most `limit` texts. An idle text keeps its cache until its slot is needed, least recently
    used first, or until all idle texts together hold more than `most` tokens. Copies of states are
    kept for the last one; others keep those of their last turn.
    """

    def __init__(self, new_cache: Callable[[], Cache], limit: int, most: int):
        self.limit = limit
        self._most = most
        self._new_cache: Callable[[], Cache] | None = new_cache
        self._slots: list[Slot] = []
        self._clock = count(1)

    def take(self, ids: list[int], adapters: LiveAdapters) -> Slot | None:
        """A slot for a prompt, truncated to the prefix that both share; None while all are busy.

        The slot with the longest shared prefix is taken, unless that would discard more than it
        saves: then the shared prefix (a system text of many chats) is copied, if the cache allows.
        """
        known = {slot: slot.common(ids, adapters) for slot in self._slots}
        free = [slot for slot in self._slots if not slot.busy]
        best = max(known, key=lambda slot: (known[slot], not slot.busy), default=None)
        mine = max(free, key=lambda slot: known[slot], default=None)
        if mine is None or (2 * known[mine] < len(mine.ids) and self.limit > 1):
            mine = self._empty(free)
            if mine is None:
                return None
            if (
                best is not None
                and mine is not best
                and known[best]
                and isinstance(mine.cache, CopiesPrefix)
            ):
                mine.cache.copy_from(best.cache, known[best])
                mine.ids = best.ids[: mine.cache.length]
            else:
                mine.keep(known.get(mine, 0))
        else:
            mine.keep(known[mine])
        mine.busy, mine.adapters, mine.used = True, adapters, next(self._clock)
        return mine

    def give_back(self, slot: Slot) -> None:
        """The answer is complete; its text is idle now."""
        slot.busy, slot.used = False, next(self._clock)
        held = 0
        for waiting in sorted(
            (one for one in self._slots if not one.busy), key=lambda one: one.used, reverse=True
        ):
            held += waiting.cache.length
            if held > self._most and waiting is not slot:
                self._slots.remove(waiting)
            elif waiting is not slot and isinstance(waiting.cache, KeepsStates):
                waiting.cache.thin_states()

    def clear(self) -> None:
        """Forget every idle text and free its memory."""
        self._slots = [slot for slot in self._slots if slot.busy]

    def release(self) -> None:
        """Forget every text and the model. The slots cannot be used afterwards."""
        self._slots, self._new_cache = [], None

    def latest(self) -> Slot | None:
        """The slot that was used last."""
        return max(self._slots, key=lambda slot: slot.used, default=None)

    def _empty(self, free: list[Slot]) -> Slot | None:
        """A new slot, else the least recently used free one."""
        if len(self._slots) < self.limit:
            assert self._new_cache is not None, "released"
            self._slots.append(Slot(self._new_cache()))
            return self._slots[-1]
        return min(free, key=lambda slot: slot.used, default=None)
