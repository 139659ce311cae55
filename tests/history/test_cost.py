"""What a history of many chats costs, in instructions of SQLite's virtual machine."""

from collections.abc import Callable
from typing import Any

import pytest

from llmchat.conversation import Message
from llmchat.history import History
from llmchat.history.imports import ImportedChat, ImportedMessage


def history_of(chats: int, messages: int) -> History:
    """So many chats, of so many messages each."""
    history = History(None)
    for number in range(chats):
        turns = [
            ImportedMessage(
                Message(
                    "assistant" if i % 2 else "user",
                    f"message {i} of chat {number} about topic{i * number % 977}",
                )
            )
            for i in range(messages)
        ]
        history.import_chat(ImportedChat(tuple(turns), f"chat {number}"))
    return history


@pytest.fixture(scope="module")
def small() -> History:
    return history_of(chats=20, messages=20)


@pytest.fixture(scope="module")
def of_long_chats() -> History:
    return history_of(chats=20, messages=200)


@pytest.fixture(scope="module")
def of_many_chats() -> History:
    return history_of(chats=100, messages=20)


def cost(history: History, act: Callable[[History], Any]) -> int:
    """How many instructions of its virtual machine SQLite executes."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection = history._database.connection
    connection.set_progress_handler(step, 1)
    try:
        assert act(history)
    finally:
        connection.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize(
    "act",
    [
        lambda history: history.sessions(20),
        lambda history: history.overviews(20),
        lambda history: history.latest(),
    ],
    ids=["sessions", "overviews", "latest"],
)
def test_a_list_costs_the_same_in_a_history_of_any_size(
    small: History, of_long_chats: History, of_many_chats: History, act: Callable[[History], Any]
) -> None:
    assert cost(small, act) == cost(of_long_chats, act) == cost(of_many_chats, act) < 1000


def test_a_chat_that_is_opened_costs_as_much_as_its_own_messages(
    small: History, of_long_chats: History, of_many_chats: History
) -> None:
    def opened(history: History) -> Any:
        latest = history.latest()
        assert latest is not None
        return history.conversation(latest.id).messages

    assert cost(small, opened) == cost(of_many_chats, opened)
    assert cost(of_long_chats, opened) <= 10 * cost(small, opened)


@pytest.mark.parametrize("text", ["topic97", "topic976 nowhere"])
def test_a_search_reads_the_index_and_not_every_message(of_long_chats: History, text: str) -> None:
    assert cost(of_long_chats, lambda history: history.search(text) or True) < 20 * 200
