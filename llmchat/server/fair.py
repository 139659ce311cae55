"""The order of those who wait: round robin over clients, and first come, first served within one."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A client that asks for a hundred things waits behind one that asks for a single one, however early the hundred came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, client: Hashable, item: Item) -> None:
        self._waiting.setdefault(client, deque()).append(item)

    def take(self) -> Item:
        """The next one; its client goes to the end of the round. Raises IndexError where nothing waits."""
        if not self._waiting:
            raise IndexError("nobody waits")
        client, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return item

    def remove(self, doomed: Callable[[Item], bool]) -> list[Item]:
        """Take out all that are `doomed`; returns them."""
        taken = [item for items in self._waiting.values() for item in items if doomed(item)]
        for client in list(self._waiting):
            kept = deque(item for item in self._waiting[client] if item not in taken)
            if kept:
                self._waiting[client] = kept
            else:
                del self._waiting[client]
        return taken
