"""A cache of what was computed from texts, bounded by the size of what it holds rather than by the number of entries."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
# Characters of the texts whose counts are remembered; each entry takes some beside its text.
_CHARACTERS, _ENTRY = 4_000_000, 200


class SizedCache(Generic[Key, Value]):
    """`compute` with a memory: the entries used last, of at most `limit` together by `size`. May be called from any thread."""

    def __init__(
        self, compute: Callable[[Key], Value], size: Callable[[Key, Value], int], limit: int
    ):
        self._compute = compute
        self._size = size
        self._limit = limit
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self.held = 0

    def __call__(self, key: Key) -> Value:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        value = self._compute(key)
        with self._lock:
            self._keep(key, value)
        return value

    def _keep(self, key: Key, value: Value) -> None:
        size = self._size(key, value)
        if key in self._entries or size > self._limit:
            return
        self._entries[key] = value
        self.held += size
        while self.held > self._limit:
            self.held -= self._size(*self._entries.popitem(last=False))


def remembered_count(count: Callable[[str], int]) -> SizedCache[str, int]:
    """A function that counts the tokens of a text, with a memory of the texts it counted last."""
    return SizedCache(count, lambda text, tokens: len(text) + _ENTRY, _CHARACTERS)
