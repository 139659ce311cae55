"""Files in a chat of the page, the sources of an answer, and the documents of the server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.office_files import pdf
from support.page_browser import Site, User, expect
from support.page_server import Script, serving
from support.worlds import make_world

from llmchat.memory.index import Index
from llmchat.memory.places import index_path
from llmchat.server.chat_files import ChatFiles
from llmchat.server.documents import ServedDocuments

HTML = "<img src=x onerror=alert(1)>"
SOURCES = [
    {"n": n, "source": f"/docs/{name}", "title": f"/docs/{name} › Eating", "text": text,
     "start": 0, "end": 9, "score": 0.5}
    for n, name, text in ((1, "birds.md", f"The heron eats trout. {HTML}"), (2, "b.pdf", "Berries"))
]  # fmt: skip
FILE = {"id": f"file-{'a' * 24}-{'0' * 16}", "name": "a.txt", "characters": 3}
DROP = """(files) => {
    const data = new DataTransfer();
    for (const [name, text] of files) data.items.add(new File([text], name));
    const target = document.querySelector("#main");
    for (const type of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true }));
}"""


@pytest.fixture
def kept(tmp_path: Path) -> ChatFiles:
    return ChatFiles(tmp_path / "files")


@pytest.fixture
def site(chromium: Any, script: Script, tmp_path: Path, kept: ChatFiles) -> Iterator[Site]:
    """A server with two indexes, files and history."""
    world = make_world(tmp_path)
    for name in ("manual", "wiki"):
        path = index_path(world, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Index.open(path, create=True).close()
    documents = ServedDocuments(world, ["manual", "wiki"], kept)
    with serving(script, tmp_path / "web.db", documents=documents) as url:
        site = Site(chromium, url, script)
        yield site
        site.leave()
    documents.close()


def give(user: User, *files: tuple[str, bytes]) -> None:
    with user.page.expect_file_chooser() as chosen:
        user.button("Add files").click()
    chosen.value.set_files([
        {"name": name, "mimeType": "text/plain", "buffer": data} for name, data in files
    ])  # fmt: skip


def names(user: User) -> Any:
    return user.find("#files .file-name")


def texts_of(kept: ChatFiles) -> list[str]:
    return sorted(path.read_text() for path in kept._root.glob("*/*/file-*.json"))


def gone(user: User, kept: ChatFiles, left: int = 0) -> bool:
    for _ in range(750):
        if len(texts_of(kept)) == left:
            return True
        user.page.wait_for_timeout(20)
    return False


def parts(message: dict[str, Any]) -> tuple[list[str], str]:
    """The ids of files and the text of a message in a request."""
    *files, text = message["content"]
    return [one["file"]["file_id"] for one in files], text["text"]


def test_files_are_read_sent_and_shown(site: Site, kept: ChatFiles) -> None:
    user = site.visit()
    give(user, ("notes.txt", b"one two"), ("paper.pdf", pdf("three")))
    expect(user.find("#files .file-size")).to_have_text(["7 B", "665 B"])
    user.ask("What is in them?")
    ids, text = parts(site.request["messages"][-1])
    assert text == "What is in them?" and len(ids) == 2
    assert [kept.document("me", id).text.strip() for id in ids] == ["one two", "three"]
    expect(user.find(".message.user .file-name")).to_have_text(["notes.txt", "paper.pdf"])
    expect(user.find("#files")).to_be_hidden()
    user.reload()
    user.ask("And again?")
    first, last = site.request["messages"][0], site.request["messages"][-1]
    assert parts(first)[0] == ids and last["content"] == "And again?"


@pytest.mark.slow
def test_files_are_dropped_on_the_page(site: Site) -> None:
    user = site.visit()
    user.page.evaluate(DROP, [["a.md", "# A"], ["b.md", "# B"]])
    expect(names(user)).to_have_text(["a.md", "b.md"])
    expect(user.find("#drop")).to_be_hidden()


@pytest.mark.slow
def test_a_file_can_be_taken_back(site: Site, kept: ChatFiles) -> None:
    user = site.visit()
    give(user, ("a.txt", b"one"), ("b.txt", b"two"))
    expect(user.find("#files .reading")).to_have_count(0)
    user.button("Remove a.txt").click()
    expect(names(user)).to_have_text(["b.txt"])
    assert gone(user, kept, left=1)
    user.ask("Hi")
    assert len(parts(site.request["messages"][-1])[0]) == 1


@pytest.mark.slow
def test_a_bad_file_is_one_clear_line(site: Site) -> None:
    user = site.visit()
    give(user, ("good.txt", b"one"), ("bad.bin", b"\0\1\2"), ("locked.pdf", pdf("x", password="p")))
    notices = user.find(".notice span")
    expect(notices).to_have_text([
        "Not added: bad.bin is a binary file; documents are text, HTML, PDF and docx",
        "Not added: locked.pdf is encrypted; remove the password, for example with"
        " `qpdf --decrypt`",
    ])  # fmt: skip
    expect(names(user)).to_have_text(["good.txt"])


@pytest.mark.slow
def test_a_file_that_is_too_large_is_not_sent(site: Site) -> None:
    user = site.visit()
    user.page.evaluate(DROP, [["big.txt", "x"]])
    expect(names(user)).to_have_text(["big.txt"])
    huge = DROP.replace("new File([text]", "new File([new Uint8Array(20000001)]")
    user.page.evaluate(huge, [["huge.txt", ""]])
    expect(user.find(".notice span")).to_have_text("huge.txt is larger than 20 MB.")
    expect(names(user)).to_have_text(["big.txt"])


@pytest.mark.slow
def test_files_of_a_new_chat_stay_while_another_is_open(site: Site) -> None:
    user = site.visit()
    user.ask("Hello")
    user.find("#new").click()
    give(user, ("a.txt", b"one"))
    expect(names(user)).to_have_text(["a.txt"])
    user.find("#conversations .open").first.click()
    expect(user.find("#files")).to_be_hidden()
    user.find("#new").click()
    expect(names(user)).to_have_text(["a.txt"])
    user.ask("Read it.")
    assert len(parts(site.request["messages"][-1])[0]) == 1


@pytest.mark.slow
def test_the_files_are_forgotten_with_the_chat(site: Site, kept: ChatFiles) -> None:
    user = site.visit()
    give(user, ("a.txt", b"one"))
    expect(user.find("#files .reading")).to_have_count(0)
    user.ask("Hello")
    user.choose("Hello", "Delete")
    user.button("Undo").click()
    expect(user.find("#conversations .name")).to_have_text("Hello")
    assert len(texts_of(kept)) == 1
    user.choose("Hello", "Delete")
    expect(user.find(".notice")).to_contain_text("deleted")
    user.page.goto("about:blank")
    assert gone(user, kept)


@pytest.mark.slow
def test_files_that_were_never_sent_are_forgotten(site: Site, kept: ChatFiles) -> None:
    user = site.visit()
    give(user, ("a.txt", b"one"))
    expect(user.find("#files .reading")).to_have_count(0)
    assert len(texts_of(kept)) == 1
    user.page.goto("about:blank")
    assert gone(user, kept)


def test_sources_open_to_their_passages(site: Site) -> None:
    site.script.answers = [["Trout [1], ", "not [3] `[2]`.", {"sources": SOURCES}]]
    user = site.visit()
    user.ask("What does it eat?")
    expect(user.find(".sources summary")).to_have_text(
        ["[1] birds.md › Eating", "[2] b.pdf › Eating"]
    )
    expect(user.find(".passage").first).to_be_hidden()
    expect(user.find(".cite")).to_have_text(["[1]"])
    user.find(".cite").click()
    expect(user.find(".passage").first).to_have_text(f"The heron eats trout. {HTML}")
    assert user.find(".passage img").count() == 0
    user.reload()
    user.find(".sources summary").last.click()
    expect(user.find(".passage").last).to_have_text("Berries")
    expect(user.answer).to_have_text("Trout [1], not [3] [2].")


@pytest.mark.slow
def test_a_note_says_that_a_file_was_searched(site: Site) -> None:
    site.script.answers = [["Yes.", {"sources": SOURCES, "searched": ["book.md"]}]]
    user = site.visit()
    user.ask("What does it eat?")
    note = "Too long for the window, so searched: book.md."
    expect(user.find(".sources .hint")).to_have_text(note)
    with user.page.expect_download() as saved:
        user.choose("What does it eat?", "Export as Markdown")
    text = Path(saved.value.path()).read_text("utf-8")
    assert "[1] /docs/birds.md › Eating  \n[2] /docs/b.pdf › Eating" in text


@pytest.mark.slow
def test_an_import_checks_files_and_sources(site: Site, tmp_path: Path) -> None:
    chat = {"format": 1, "id": "a" * 24, "title": "Old", "changed": 1, "docs": ["wiki"]}
    user_message = {"id": "b" * 24, "parent": "", "role": "user", "text": "Hi", "files": [5, FILE]}
    answer = {"id": "c" * 24, "parent": "b" * 24, "role": "assistant", "text": "Yes [1]."}
    answer |= {"sources": [{"n": "1"}, SOURCES[0]]}
    messages = {one["id"]: one for one in (user_message, answer)}

    def give_export(**changes: Any) -> None:
        content = {**chat, "messages": messages, **changes}
        file = tmp_path / "export.json"
        file.write_text(json.dumps({"llmchat": "conversations", "conversations": [content]}))
        with user.page.expect_file_chooser() as chosen:
            user.find("#import").click()
        chosen.value.set_files(file)

    user = site.visit()
    give_export(docs=5)
    expect(user.find(".notice span")).to_contain_text('a conversation has an invalid "docs"')
    give_export()
    user.find("#conversations .open").click()
    expect(user.find(".message.user .file-name")).to_have_text("a.txt")
    expect(user.find(".sources summary")).to_have_text("[1] birds.md › Eating")


@pytest.mark.slow
def test_documents_are_chosen_for_a_chat(site: Site) -> None:
    user = site.visit()
    user.ask("Hello")
    assert "docs" not in site.request
    user.button("Documents").click()
    user.page.get_by_label("wiki").check()
    user.page.keyboard.press("Escape")
    expect(user.find("#docs-toggle")).to_have_text("Documents: 1")
    user.ask("And now?")
    assert site.request["docs"] == ["wiki"]
    user.reload()
    expect(user.find("#docs-toggle")).to_have_text("Documents: 1")
    user.ask("Still?")
    assert site.request["docs"] == ["wiki"]


@pytest.mark.slow
def test_a_server_without_documents_shows_no_buttons(chromium: Any, script: Script) -> None:
    with serving(script) as url:
        site = Site(chromium, url, script)
        user = site.visit()
        for name in ("Add files", "Documents"):
            expect(user.button(name)).to_be_hidden()
        user.page.evaluate(DROP, [["a.md", "# A"]])
        expect(user.find("#files")).to_be_hidden()
        site.leave()
