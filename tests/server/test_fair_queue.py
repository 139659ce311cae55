"""The fair queue: clients take turns, and the one with the most items makes room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.server.fair_queue import FairQueue, QueueFull


@given(st.lists(st.integers(0, 3), max_size=30))
def test_clients_take_turns_and_keep_their_own_order(clients: list[int]) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number, client in enumerate(clients):
        queue.put(client, (client, number))
    taken = [queue.take() for _ in range(len(clients))]
    assert len(queue) == 0 and sorted(taken) == sorted(
        (client, number) for number, client in enumerate(clients)
    )
    for client in set(clients):
        own = [number for who, number in taken if who == client]
        assert own == sorted(own)
    rounds = [
        sum(1 for who, _ in taken[: index + 1] if who == client)
        for index, (client, _) in enumerate(taken)
    ]
    assert rounds == sorted(rounds), "no client is served twice before all others are served once"


@given(
    st.lists(st.integers(0, 3), max_size=20),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_the_client_with_the_most_items_makes_room(
    clients: list[int], newcomer: int, count: int, places: int
) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number, client in enumerate(clients[:places]):
        queue.put(client, (client, number))
    before = {client: clients[:places].count(client) for client in range(4)}
    try:
        displaced = queue.make_room(newcomer, count, places)
    except QueueFull:
        assert len(queue) == len(clients[:places])
        return
    after = {client: sum(1 for who, _ in queue if who == client) for client in range(4)}
    assert len(queue) + count <= max(places, len(clients[:places])) and len(queue) + len(
        displaced
    ) == len(clients[:places])
    for client, _ in displaced:
        assert after[client] >= before[newcomer] + count and client != newcomer


def test_removed_items_leave_the_queue() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(6):
        queue.put(number % 2, number)
    assert sorted(queue.remove(lambda number: number < 4)) == [0, 1, 2, 3] and len(queue) == 2
    assert [queue.take(), queue.take()] == [4, 5]
    with pytest.raises(IndexError):
        queue.take()
