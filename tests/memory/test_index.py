"""An index holds what was added, and finds it by words."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmchat.errors import IntegrityError, UsageError
from llmchat.memory.index import Index
from llmchat.memory.readers import Document


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "a.sqlite", create=True) as opened:
        yield opened


def found(index: Index, question: str) -> list[str]:
    return [hit.passage.source for hit in index.search(question, mode="words")]


def test_a_folder_is_added_and_found(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "cat.md").write_text("# Cats\nA cat purrs when it is content.\n")
    (folder / "inner" / "dog.txt").write_text("Dogs bark at strangers.\n")
    (folder / ".hidden.txt").write_text("cat\n")
    added = index.add([folder])
    assert (added.read, added.passages, added.skipped) == (2, 2, [])
    (hit, *rest) = index.search("why do cats purr?")
    assert hit.passage.source == str(folder / "cat.md") and not rest
    assert (hit.passage.heading, hit.passage.start) == ("Cats", 0)


def test_a_changed_file_is_read_again(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("apples")
    index.add([path])
    assert index.add([path]).unchanged == 1
    path.write_text("oranges are sweet")
    assert index.add([path]).read == 1
    assert found(index, "apples") == [] and found(index, "oranges") == [str(path)]


def test_a_removed_document_is_not_found(index: Index) -> None:
    index.add([Document("one", "red green"), Document("two", "green blue")])
    index.remove("one")
    assert found(index, "red") == [] and found(index, "green") == ["two"]
    assert [one.source for one in index.documents()] == ["two"]
    with pytest.raises(UsageError, match="one is not in the index"):
        index.remove("one")


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "AND OR NOT",
        "a*b^2 NEAR(",
        "heading:x",
        "-x + (y)",
        "'; DROP TABLE words",
        "\0",
        "",
        "*",
    ],
)
def test_signs_of_a_question_are_no_syntax(index: Index, question: str) -> None:
    index.add([Document("a", "some text, not more")])
    index.search(question)


@pytest.mark.parametrize("question", ["日本語", "本語", "語", "検索はどう"])
def test_scripts_without_spaces_are_found(index: Index, question: str) -> None:
    index.add([Document("ja", "日本語の検索はうまくいく。"), Document("en", "Japanese")])
    assert found(index, question) == ["ja"]


def test_words_are_found_in_other_forms(index: Index) -> None:
    index.add([Document("a", "Café openings: open_file opens files")])
    for question in ("cafe", "OPENING", "file", "open_files"):
        assert found(index, question) == ["a"]


def test_an_index_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.sqlite"
    with pytest.raises(UsageError, match="there is no index"):
        Index.open(path)
    with Index.open(path, create=True) as index:
        index.add([Document("a", "text")])
    with Index.open(path) as index:
        (passage,) = index.passages_of("a")
    assert passage.text == "text" and path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(IntegrityError, match="is not a readable index"):
        Index.open(path)


def test_a_loop_of_links_is_not_followed(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "loop").symlink_to(folder)
    assert index.add([folder]).read == 1


def test_a_binary_file_is_skipped_with_its_reason(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "b.bin").write_bytes(b"\0\1\2")
    added = index.add([folder])
    assert added.read == 1
    assert [one.reason for one in added.skipped] == [f"{folder / 'b.bin'} is a binary file"]
