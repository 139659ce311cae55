"""Past chats are found by what was meant, and leave no trace once they are deleted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.word_embedders import WordEmbedder
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.history import BranchWriter, History
from llmchat.memory.index import Index
from llmchat.memory.places import index_path
from llmchat.models.past_chats import (
    PastChats,
    document_of,
    forget,
    index_file,
    source_of,
    turn_of,
)
from llmchat.settings import World

GROUPS = ("cat feline", "soup broth")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def history(world: World) -> Iterator[History]:
    with History(world.history_file, world.now) as history:
        yield history


def chat(history: History, *texts: str) -> str:
    """A stored chat; the texts are questions and answers in turn. Returns its session."""
    session = history.begin("smollm2")
    writer = BranchWriter(history, session)
    for number, text in enumerate(texts):
        writer.append(Message(("user", "assistant")[number % 2], text))  # type: ignore[arg-type]
    writer.release()
    return session


def past(world: World, embedder: WordEmbedder) -> PastChats:
    return PastChats(world, open_embedder=lambda world, name: embedder)


def test_a_chat_is_found_by_other_words(world: World, history: History) -> None:
    cats = chat(history, "why does my cat sleep so long", "they rest before a hunt")
    soups = chat(history, "how long does broth boil", "two hours or more")
    chats = past(world, WordEmbedder(groups=GROUPS))
    found = chats.chats(history, "feline naps", 5)
    assert [hit.session for hit in found] == [cats, soups]
    assert (found[0].title, found[0].role) == ("why does my cat sleep so long", "assistant")
    assert found[0].snippet == "why does my cat sleep so long they rest before a hunt"
    assert found[0].score > found[1].score  # type: ignore[operator]


def test_each_chat_is_one_result(world: World, history: History) -> None:
    session = chat(history, "cat one", "a", "cat two", "b", "cat three", "c")
    found = past(world, WordEmbedder()).chats(history, "cat", 5)
    assert [hit.session for hit in found] == [session]


def test_only_new_turns_are_embedded(world: World, history: History) -> None:
    embedder = WordEmbedder()
    chat(history, "the first question", "an answer", "a question without an answer")
    past(world, embedder).find(history, "question", 5)
    assert embedder.embedded == 2
    chat(history, "the second question", "another answer")
    past(world, embedder).find(history, "question", 5)
    assert embedder.embedded == 3


def test_other_branches_are_found_and_a_fork_is_not_twice(world: World, history: History) -> None:
    session = chat(history, "the question", "a rejected zebra")
    writer = BranchWriter(history, session)
    writer.rewind(1, 0)
    writer.append(Message("assistant", "a chosen lion"))
    writer.fork()
    writer.release()
    chats = past(world, WordEmbedder())
    assert [one.session for one in chats.find(history, "zebra", 5)][:1] == [session]
    assert len({one.message for one in chats.find(history, "question zebra lion", 5)}) == 2


def test_turns_can_be_left_out(world: World, history: History) -> None:
    session = chat(history, "some walnuts", "an answer")
    ids = [record.id for record in history.messages(session)]
    chats = past(world, WordEmbedder())
    assert len(chats.recall(history, "walnuts", 5)) == 1
    assert chats.recall(history, "walnuts", 5, without=ids) == []


def test_nothing_is_recalled_for_a_question_about_something_else(
    world: World, history: History
) -> None:
    chat(history, "my cat sleeps", "soundly")
    near = WordEmbedder(groups=GROUPS, name="all-minilm-l6-v2")
    assert past(world, near).recall(history, "feline", 5)
    assert not past(world, near).recall(history, "broth", 5)
    assert past(world, near).find(history, "broth", 5)


def test_without_an_embedder_words_are_searched_and_the_user_is_told(
    world: World, history: History
) -> None:
    session = chat(history, "why does my cat sleep", "before a hunt")
    notes: list[str] = []
    (found,) = PastChats(world, notes.append).chats(history, "CAT", 5)
    assert found.session == session
    (note,) = notes
    assert note.startswith("searching by words alone: ") and "llmchat pull" in note


def test_vectors_are_added_once_there_is_an_embedder(world: World, history: History) -> None:
    chat(history, "why does my cat sleep", "before a hunt")
    PastChats(world).find(history, "cat", 5)
    embedder = WordEmbedder(groups=GROUPS)
    assert past(world, embedder).find(history, "feline", 5)
    assert embedder.embedded == 1


def test_a_deleted_chat_leaves_every_index_and_its_text_their_files(
    world: World, history: History
) -> None:
    secret = chat(history, "my hidden treasure", "is buried under xylophones")
    kept = chat(history, "something else", "entirely")
    path = index_path(world, "mine")
    with Index.open(path, create=True) as index:
        index.add(
            [document_of(turn) for turn in history.turns(one for _, one in history.turn_ids())]
        )
    past(world, WordEmbedder()).find(history, "treasure", 5)
    history.delete(secret)
    forget([secret], world)
    for file in (index_file(world), path):
        with Index.open(file) as index:
            assert [turn_of(one.source)[0] for one in index.documents()] == [kept]  # type: ignore[index]
        left = b"".join(one.read_bytes() for one in file.parent.glob(f"{file.name}*"))
        assert b"xylophone" not in left and b"treasur" not in left


def test_what_left_the_history_in_another_way_leaves_with_the_next_search(
    world: World, history: History
) -> None:
    gone = chat(history, "my hidden treasure", "is buried under xylophones")
    chats = past(world, WordEmbedder())
    chats.find(history, "treasure", 5)
    history.delete(gone)
    assert chats.find(history, "treasure", 5) == []
    assert b"xylophone" not in index_file(world).read_bytes()


def test_forgetting_needs_no_index(world: World) -> None:
    forget(["abcd1234"], world)
    assert not index_file(world).exists()


def test_a_source_names_its_turn() -> None:
    assert turn_of(source_of("abcd1234", 5)) == ("abcd1234", 5)
    assert turn_of("/home/me/session:x") is None
