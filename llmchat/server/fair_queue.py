"""A queue that is fair to clients: round robin over clients, first in, first out for each."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueFull(Exception):
    """No other client has more items than this one would have, so none is displaced."""


class FairQueue(Generic[Item]):
    """A client with a hundred items does not delay one with a single item."""

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def __iter__(self) -> Iterator[Item]:
        """All items, client by client."""
        return (item for items in self._items.values() for item in items)

    def put(self, client: Hashable, item: Item) -> None:
        self._items.setdefault(client, deque()).append(item)

    def make_room(self, client: Hashable, count: int, capacity: int) -> list[Item]:
        """Remove and return items so that `count` more of this client fit into `capacity`.

        The client with the most items loses its latest ones, as long as it keeps more than this
        client will have. Raises QueueFull, without removing anything, if that is not enough.
        """
        excess = len(self) + count - capacity
        counts = {other: len(items) for other, items in self._items.items() if other != client}
        own_count = len(self._items.get(client, ())) + count
        losers: list[Hashable] = []
        for _ in range(excess):
            largest = max(counts, key=lambda other: counts[other], default=None)
            if largest is None or counts[largest] <= own_count:
                raise QueueFull
            counts[largest] -= 1
            losers.append(largest)
        return [self._items[other].pop() for other in losers]

    def take(self) -> Item:
        """Remove and return the next item; its client moves to the end of the round.

        Raises IndexError if the queue is empty.
        """
        if not self._items:
            raise IndexError("the queue is empty")
        client, items = self._items.popitem(last=False)
        item = items.popleft()
        if items:
            self._items[client] = items
        return item

    def remove(self, matches: Callable[[Item], bool]) -> list[Item]:
        """Remove and return all items for which `matches` is true."""
        removed = [item for item in self if matches(item)]
        for client in list(self._items):
            kept = deque(item for item in self._items[client] if item not in removed)
            if kept:
                self._items[client] = kept
            else:
                del self._items[client]
        return removed
