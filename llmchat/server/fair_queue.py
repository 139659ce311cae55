"""The order of those who wait: round robin over clients, and first come, first served within one."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueFull(Exception):
    """The queue has no place for this client: nobody else holds more places than it would."""


class FairQueue(Generic[Item]):
    """A client that asks for a hundred things waits behind one that asks for a single one, however early the hundred came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Item]:
        """All that wait, client by client."""
        return (item for items in self._waiting.values() for item in items)

    def put(self, client: Hashable, item: Item) -> None:
        self._waiting.setdefault(client, deque()).append(item)

    def make_room(self, client: Hashable, count: int, places: int) -> list[Item]:
        """Take out what has to go so that `count` more items of this client fit into `places`; returns it.

        The client with the most items gives up its latest ones, as long as it keeps more than the newcomer has.
        Raises QueueFull, and takes nothing out, where that is not enough.
        """
        over = len(self) + count - places
        held = {other: len(items) for other, items in self._waiting.items() if other != client}
        wanted = len(self._waiting.get(client, ())) + count
        matches: list[Hashable] = []
        for _ in range(over):
            greediest = max(held, key=lambda other: held[other], default=None)
            if greediest is None or held[greediest] <= wanted:
                raise QueueFull
            held[greediest] -= 1
            matches.append(greediest)
        return [self._waiting[other].pop() for other in matches]

    def take(self) -> Item:
        """The next one; its client goes to the end of the round. Raises IndexError where nothing waits."""
        if not self._waiting:
            raise IndexError("the queue is empty")
        client, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return item

    def remove(self, matches: Callable[[Item], bool]) -> list[Item]:
        """Take out all that are `matches`; returns them."""
        taken = [item for item in self if matches(item)]
        for client in list(self._waiting):
            kept = deque(item for item in self._waiting[client] if item not in taken)
            if kept:
                self._waiting[client] = kept
            else:
                del self._waiting[client]
        return taken
