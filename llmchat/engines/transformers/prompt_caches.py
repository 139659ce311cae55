"""The texts a model has read and still remembers: which cache a new prompt goes on with."""

from collections.abc import Callable
from itertools import count, takewhile

from llmchat.engines.transformers.executor import Cache, CopiesPrefix
from llmchat.engines.transformers.live_lora import LiveAdapters


class Slot:
    """A cache and the token ids in it. Another text may begin with them, under the same adapters."""

    def __init__(self, cache: Cache):
        self.cache = cache
        self.ids: list[int] = []
        self.adapters: LiveAdapters = ()
        self.used = 0
        self.busy = False

    def common(self, ids: list[int], adapters: LiveAdapters) -> int:
        """How many tokens of `ids` are in it, counted from the start, leaving at least one to read."""
        if self.adapters != adapters:
            return 0
        return sum(
            1
            for _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(self.ids, ids[:-1], strict=False)
            )
        )

    def keep(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept, which may be fewer."""
        kept = self.cache.truncate(length)
        del self.ids[kept:]
        return kept


class Slots:
    """At most `limit` texts at once. A text that waits keeps its cache until its place is needed, the longest unused first, or until all that
    wait hold more than `most` tokens."""

    def __init__(self, new_cache: Callable[[], Cache], limit: int, most: int):
        self.limit = limit
        self._most = most
        self._new_cache: Callable[[], Cache] | None = new_cache
        self._slots: list[Slot] = []
        self._clock = count(1)

    def take(self, ids: list[int], adapters: LiveAdapters) -> Slot | None:
        """A slot for a prompt, cut down to what it has in common with it; None while all are busy.

        It goes on in the slot that knows most of it, unless that would throw away more than it saves: then what both begin with is copied
        (a system text that many conversations share), where the cache can be.
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
                mine.ids = best.ids[: known[best]]
            else:
                mine.keep(known.get(mine, 0))
        else:
            mine.keep(known[mine])
        mine.busy, mine.adapters, mine.used = True, adapters, next(self._clock)
        return mine

    def give_back(self, slot: Slot) -> None:
        """The answer is done, its text waits now."""
        slot.busy, slot.used = False, next(self._clock)
        held = 0
        for waiting in sorted(
            (one for one in self._slots if not one.busy), key=lambda one: one.used, reverse=True
        ):
            held += waiting.cache.length
            if held > self._most and waiting is not slot:
                self._slots.remove(waiting)

    def clear(self) -> None:
        """Forget every text, and give their memory back."""
        self._slots = [slot for slot in self._slots if slot.busy]

    def release(self) -> None:
        """Forget every text and the model, which the caches belong to; no text can follow."""
        self._slots, self._new_cache = [], None

    def latest(self) -> Slot | None:
        """The slot that was used last."""
        return max(self._slots, key=lambda slot: slot.used, default=None)

    def _empty(self, free: list[Slot]) -> Slot | None:
        """A new slot, or else the free one that waits longest."""
        if len(self._slots) < self.limit:
            assert self._new_cache is not None, "released"
            self._slots.append(Slot(self._new_cache()))
            return self._slots[-1]
        return min(free, key=lambda slot: slot.used, default=None)
