"""An update follows the files, and an index stays right when a process dies or two write."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.word_embedders import WordEmbedder

from llmchat.errors import LlmchatError, OutOfResources, UsageError
from llmchat.memory import walk
from llmchat.memory.index import Index
from llmchat.memory.readers import Document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three documents."""
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    for name in ("one", "two", "inner/three"):
        (folder / f"{name}.txt").write_text(f"text of {name}")
    return folder


@pytest.fixture
def index(tmp_path: Path, folder: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "a.sqlite", create=True) as opened:
        opened.add([folder])
        yield opened


def names(index: Index) -> list[str]:
    return sorted(Path(one.source).stem for one in index.documents())


def test_an_update_reads_changes_and_drops_deleted_files(index: Index, folder: Path) -> None:
    (folder / "one.txt").write_text("something new")
    (folder / "two.txt").unlink()
    (folder / "four.txt").write_text("text")
    done = index.update()
    assert (done.read, done.unchanged, done.removed) == (2, 1, 1)
    assert names(index) == ["four", "one", "three"]
    assert index.search("something")[0].passage.text == "something new"


def test_a_file_with_a_new_time_and_old_content_is_not_read_again(
    index: Index, folder: Path
) -> None:
    os.utime(folder / "one.txt", (1, 1))
    done = index.update()
    assert (done.read, done.unchanged) == (0, 3)


def test_documents_of_a_folder_that_is_away_stay(index: Index, folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    done = index.update()
    assert done.removed == 0 and [one.source for one in done.skipped] == [str(folder)]
    assert names(index) == ["one", "three", "two"]


def test_a_file_that_was_added_by_itself_leaves_when_it_is_deleted(
    index: Index, tmp_path: Path
) -> None:
    (tmp_path / "lone.txt").write_text("alone")
    index.add([tmp_path / "lone.txt"])
    (tmp_path / "lone.txt").unlink()
    assert index.update().removed == 1 and names(index) == ["one", "three", "two"]


def test_what_was_removed_stays_removed_until_it_is_added_again(index: Index, folder: Path) -> None:
    assert index.remove(str(folder / "inner")) == 1
    index.update()
    assert names(index) == ["one", "two"]
    index.add([folder])
    assert names(index) == ["one", "three", "two"]


def test_a_file_that_becomes_unreadable_leaves(index: Index, folder: Path) -> None:
    (folder / "one.txt").write_bytes(b"\0binary")
    done = index.update()
    assert [one.source for one in done.skipped] == [str(folder / "one.txt")]
    assert names(index) == ["three", "two"]


def test_a_name_that_is_not_utf_8_is_skipped(index: Index, folder: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff.txt", "w") as file:
        file.write("text")
    assert [one.reason for one in index.update().skipped] == [
        f"the name of {folder}/\ufffd.txt is not UTF-8"
    ]


def test_a_folder_with_too_many_files_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_FILES", 2)
    with (
        Index.open(tmp_path / "b.sqlite", create=True) as index,
        pytest.raises(UsageError, match="holds more than 2 files"),
    ):
        index.add([folder])


KILLED = """
import os, signal, sys
from pathlib import Path
from llmchat.memory import stored
from llmchat.memory.index import Index
write, count = stored.insert, 0

def insert(*arguments):
    global count
    count += 1
    write(*arguments)
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)

stored.insert = insert
with Index.open(Path(sys.argv[1]), create=True) as index:
    index.add([Path(sys.argv[2])])
"""


def test_a_kill_in_the_middle_of_a_file_loses_that_file_alone(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "b.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(folder)])
    assert done.returncode == -9
    with Index.open(path) as index:
        assert len(index.documents()) == 2
        assert index.update().read == 1 and len(index.documents()) == 3
        assert check(path)


def check(path: Path) -> bool:
    """Whether SQLite finds the file, and its index of words, whole."""
    database = sqlite3.connect(path)
    database.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_two_writers_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"

    def write(name: str) -> None:
        with Index.open(path, create=True) as index:
            documents = [Document(f"{name}{n}", f"word{n} text") for n in range(20)]
            index.add([*documents, Document("shared", f"by {name}")], WordEmbedder())

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Index.open(path) as index:
        assert len(index.documents()) == 41 == index.count()
        assert len(index.search("word7", embedder=WordEmbedder(), mode="words")) == 2
    assert check(path)


def test_a_writer_that_waits_too_long_says_so(index: Index, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    index._database.connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(LlmchatError, match=r"another program has locked .*a\.sqlite"):
        index.add([Document("new", "text")])
    other.execute("ROLLBACK")
    assert index.add([Document("new", "text")]).read == 1


def test_a_full_disk_loses_only_the_document_that_does_not_fit(
    index: Index, tmp_path: Path
) -> None:
    database = index._database.connection
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(OutOfResources, match="the disk is full"):
        index.add([Document("large", "word " * 20_000)])
    assert names(index) == ["one", "three", "two"] and index.search("text of one")
    assert check(tmp_path / "a.sqlite")
