"""A cache of results computed from texts, limited by total size instead of number of entries."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
# The most characters of remembered texts; the overhead of an entry counts as some of them.
_CHARACTERS, _ENTRY = 4_000_000, 200


class SizedCache(Generic[Key, Value]):
    """`compute` with a cache of the results used last, together at most `limit` by `size`.

    Safe to call from any thread.
    """

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
    """`count`, which counts the tokens of a text, with a cache of the texts it counted last."""
    return SizedCache(count, lambda text, tokens: len(text) + _ENTRY, _CHARACTERS)
