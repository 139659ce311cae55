"""`-f` and `/file`: files, folders, patterns and addresses, and what does not fit the window."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback_web import Reply, Site, serving
from support.repl import make_repl, type_in
from support.worlds import make_world

from llmchat.attachments.given_files import GivenText, read_given
from llmchat.conversation import Message
from llmchat.errors import LlmchatError, UsageError
from llmchat.settings import Options
from llmchat.ui.repl import Repl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    (texts / "deep").mkdir(parents=True)
    (texts / "a.md").write_text("alpha")
    (texts / "deep" / "b.py").write_text("bravo = 1\n")
    (texts / ".hidden").write_text("secret")
    (texts / "photo.jpg").write_bytes(b"\xff\xd8\0\0")
    (texts / "loop").symlink_to(texts)
    return texts


def given(tmp_path: Path, *names: str, **options: object) -> tuple[list[GivenText], list[str]]:
    notes: list[str] = []
    world = make_world(tmp_path)
    return read_given(world, names, Options(**options), notes.append), notes


def test_a_folder_gives_its_text_files(tmp_path: Path, folder: Path) -> None:
    found, (note,) = given(tmp_path, str(folder))
    assert [(one.name, one.text) for one in found] == [
        (f"{folder}/a.md", f"{folder}/a.md:\nalpha"),
        (f"{folder}/deep/b.py", f"{folder}/deep/b.py:\nbravo = 1"),
    ]
    assert found[0].document.source == f"{folder}/a.md"
    assert note.startswith(f"1 file of {folder} skipped: ") and "photo.jpg" in note


def test_a_pattern_gives_the_files_it_matches(tmp_path: Path, folder: Path) -> None:
    assert [one.name for one in given(tmp_path, f"{folder}/**/*.py")[0]] == [f"{folder}/deep/b.py"]
    with pytest.raises(UsageError, match="cannot be read"):
        given(tmp_path, f"{folder}/*.nothing")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("one")
    assert [one.text for one in given(tmp_path, str(tmp_path / "a[1].txt"))[0]] == ["one"]


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty has no text files"):
        given(tmp_path, str(tmp_path / "empty"))


@pytest.fixture
def site() -> Iterator[Site]:
    page = b"<title>Bridges</title><p>Built in 1932.</p>"
    with serving(Site(pages={"/a": Reply(page, "text/html")})) as site:
        yield site


def test_an_address_gives_the_text_of_its_page(tmp_path: Path, site: Site) -> None:
    (page,), _ = given(tmp_path, f"{site.url}/a", allow_private=True)
    assert page.name == f"{site.url}/a" and page.text == f"{site.url}/a:\nBuilt in 1932."
    assert page.document.source == f"{site.url}/a"


def test_an_address_of_this_network_is_refused(tmp_path: Path, site: Site) -> None:
    with pytest.raises(LlmchatError, match="not an address of the public internet"):
        given(tmp_path, f"{site.url}/a")
    assert site.asked == []


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    return make_repl(tmp_path)


def question(repl: Repl, number: int = 0) -> Message:
    asked = [one for one in repl.state.chat.conversation.messages if one.role == "user"]
    return asked[number]


def test_a_folder_is_attached_file_by_file(repl: Repl, folder: Path) -> None:
    assert "attached to your next message" in type_in(repl, f"/file {folder}")
    type_in(repl, "What is in there?")
    assert question(repl).materials == [
        (f"{folder}/a.md", f"{folder}/a.md:\nalpha"),
        (f"{folder}/deep/b.py", f"{folder}/deep/b.py:\nbravo = 1"),
    ]


def make_book(path: Path) -> None:
    chapters = [f"# Chapter {n}\n\nNothing happens here in number {n}. " * 20 for n in range(12)]
    chapters[7] += "\n\nThe captain hid the golden compass under the stairs.\n"
    path.write_text("\n\n".join(chapters))


def test_what_does_not_fit_is_searched_and_a_note_says_so(repl: Repl, tmp_path: Path) -> None:
    make_book(tmp_path / "book.md")
    assert "it is searched for your questions" in type_in(repl, f"/file {tmp_path}/book.md")
    shown = type_in(repl, "Where is the golden compass?")
    assert "does not fit the window: it is searched" in shown
    assert f"[1] {tmp_path}/book.md" in shown
    assert "under the stairs" in question(repl).input and question(repl).passages
    type_in(repl, "Who hid the compass?", "thanks")
    assert "under the stairs" in question(repl, 1).input
    assert question(repl, 2).passages == ()


def test_a_question_without_a_subject_gets_the_beginning(repl: Repl, tmp_path: Path) -> None:
    make_book(tmp_path / "book.md")
    type_in(repl, f"/file {tmp_path}/book.md", "???")
    assert question(repl).passages[0].start == 0


def test_the_index_of_a_text_is_made_once(repl: Repl, tmp_path: Path) -> None:
    make_book(tmp_path / "book.md")
    for _ in range(2):
        type_in(repl, f"/file {tmp_path}/book.md", "Where is the golden compass?")
    (index,) = (repl.state.world.cache / "material").glob("*.sqlite")
    assert index.stat().st_mode & 0o077 == 0
    assert repl.state.documents.names == ("attached 1",)
