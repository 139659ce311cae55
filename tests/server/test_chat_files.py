"""Files of chats: read by the server, for one chat and one user, whole or searched."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.office_files import pdf, word
from support.serving import Running, model_spec, serving
from support.worlds import make_world

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server import chat_files
from llmchat.server.chat_files import ChatFiles, FilesFull, NoFile, plain_name
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.documents import ServedDocuments
from llmchat.server.files_api import MAX_FILE
from llmchat.server.keys import Keys
from llmchat.server.run import forget_old_files

CHAT, OTHER = "a" * 24, "b" * 24
LONG = "\n\n".join(
    f"Chapter {number}. The {animal} of the valley eats {food} in winter."
    for number, (animal, food) in enumerate(
        [("badger", "acorns"), ("heron", "trout"), ("marten", "berries")] * 40
    )
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    documents = ServedDocuments(make_world(folder), [], ChatFiles(folder / "files"))
    specs = {"m": model_spec(lambda: ScriptedEngine(["Yes."], context=1200), key="m")}
    keys = Keys(folder / "keys.json")
    people[:] = [keys.add("ann"), keys.add("bob")]
    with serving(specs, folder, documents=documents, max_body=2_000_000) as running:
        yield running


people: list[str] = []


def client(run: Running, who: int = 0) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {people[who]}"}
    return httpx2.Client(base_url=run.url, headers=headers, timeout=30)


def add(run: Running, name: str, data: bytes, chat: str = CHAT, who: int = 0) -> Any:
    return client(run, who).post(f"/api/files/{chat}", params={"name": name}, content=data)


def ask(run: Running, text: str, *ids: str, who: int = 0, **more: Any) -> Any:
    files = [{"type": "file", "file": {"file_id": id}} for id in ids]
    messages = [{"role": "user", "content": [{"type": "text", "text": text}, *files]}]
    body = {"model": "m", "messages": messages, "show_prompt": True, **more}
    return client(run, who).post("/v1/chat/completions", json=body)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("notes.txt", b"The heron eats trout.\n"),
        ("notes.md", b"# Birds\n\nThe heron eats trout.\n"),
        ("paper.pdf", pdf("The heron eats trout.")),
        ("letter.docx", word(("Normal", "The heron eats trout."))),
    ],
)
def test_a_file_that_fits_goes_whole_before_the_question(
    run: Running, name: str, data: bytes
) -> None:
    added = add(run, name, data)
    assert added.status_code == 201 and added.json()["name"].startswith(name.partition(".")[0])
    answer = ask(run, "What does it eat?", added.json()["id"]).json()
    prompt = answer["llmchat"]["prompt"]
    assert prompt.index(added.json()["name"]) < prompt.index("heron eats trout")
    assert prompt.index("heron eats trout") < prompt.index("What does it eat?")
    assert "sources" not in answer["choices"][0]["message"] and "searched" not in answer["llmchat"]


def test_a_file_that_does_not_fit_is_searched(run: Running) -> None:
    id = add(run, "book.md", LONG.encode(), OTHER).json()["id"]
    answer = ask(run, "What does the marten eat?", id).json()
    assert answer["llmchat"]["searched"] == ["book.md"]
    sources = answer["choices"][0]["message"]["sources"]
    assert sources[0]["source"] == "book.md" and "marten" in sources[0]["text"]
    assert LONG[sources[0]["start"] : sources[0]["end"]] == sources[0]["text"]
    assert answer["llmchat"]["window"]["tokens"] < 1000


def test_a_question_that_shares_no_word_gets_the_first_passages(run: Running) -> None:
    id = add(run, "book.md", LONG.encode(), "c" * 24).json()["id"]
    (first, *_) = ask(run, "Summarise this.", id).json()["choices"][0]["message"]["sources"]
    assert first["start"] == 0


def test_a_later_question_searches_the_file_only_if_it_fits(run: Running) -> None:
    id = add(run, "book.md", LONG.encode(), OTHER).json()["id"]
    file = {"type": "file", "file": {"file_id": id}}

    def later(text: str) -> Any:
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "Read this."}, file]},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": text},
        ]
        return ask(run, "", messages=messages).json()["choices"][0]["message"]

    assert "heron" in later("What does the heron of the valley eat?")["sources"][0]["text"]
    assert "sources" not in later("Thank you!")


def test_only_the_files_of_the_messages_are_searched(run: Running) -> None:
    chat, question = "d" * 24, "Which marten eats marzipan?"
    other = add(run, "other.md", b"The marten eats marzipan, says the marten.\n", chat).json()["id"]
    book = add(run, "book.md", LONG.encode(), chat).json()["id"]

    def sources(*ids: str) -> set[str]:
        message = ask(run, question, *ids).json()["choices"][0]["message"]
        return {one["source"] for one in message["sources"]}

    assert sources(book, other) == {"other.md"}
    assert sources(book) == {"book.md"}
    assert sources(other, book) == {"other.md"}


def test_files_with_one_name_are_told_apart(run: Running) -> None:
    chat = "e" * 24
    names = [add(run, "a.txt", text, chat).json()["name"] for text in (b"one", b"two")]
    assert names == ["a.txt", "a (2).txt"]


def test_an_older_message_keeps_its_file_when_messages_are_dropped(run: Running) -> None:
    id = add(run, "notes.txt", b"The heron eats trout.\n").json()["id"]
    file = {"type": "file", "file": {"file_id": id}}
    chatter = [
        {"role": role, "content": "blah " * 100} for _ in range(8) for role in ("user", "assistant")
    ]
    messages = [
        {"role": "user", "content": [file, {"type": "text", "text": "Read."}]},
        {"role": "assistant", "content": "Done."},
        *chatter,
        {"role": "user", "content": "And?"},
    ]
    answer = ask(run, "", messages=messages, truncation="auto").json()
    assert answer["llmchat"]["window"]["dropped"] > 0
    assert "heron eats trout" in answer["llmchat"]["prompt"]


def test_no_other_key_can_use_a_file(run: Running) -> None:
    id = add(run, "mine.txt", b"a secret of ann").json()["id"]
    refused = ask(run, "What is it?", id, who=1)
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "file_not_found"
    assert client(run, 1).delete(f"/api/files/{CHAT}/{id}").status_code == 404
    assert client(run, 1).delete(f"/api/files/{CHAT}").status_code == 204
    assert ask(run, "What is it?", id).status_code == 200


def test_a_file_is_forgotten_alone_or_with_its_chat(run: Running) -> None:
    chat = "f" * 24
    one, two = (add(run, f"{n}.md", LONG.encode(), chat).json()["id"] for n in "12")
    assert ask(run, "What does the heron eat?", one, two).status_code == 200
    assert client(run).delete(f"/api/files/{chat}/{one}").status_code == 204
    assert ask(run, "What does the heron eat?", one).status_code == 404
    assert client(run).delete(f"/api/files/{chat}").status_code == 204
    assert ask(run, "What does the heron eat?", two).status_code == 404
    assert not list(Path(run.state.documents.files._root).glob(f"*/{chat}"))  # type: ignore[union-attr]


def test_files_of_two_chats_do_not_mix(run: Running) -> None:
    ids = [add(run, "b.md", LONG.encode(), chat).json()["id"] for chat in ("1" * 24, "2" * 24)]
    answer = ask(run, "What does the heron eat?", *ids)
    assert answer.status_code == 400 and "several chats" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", pdf("text", password="no"), "a.pdf is encrypted; remove the password"),
        ("a.pdf", b"%PDF-1.4 rubbish", "a.pdf cannot be read: it is damaged"),
        ("a.bin", b"\x00\x01\x02", "a.bin is a binary file; documents are text"),
        ("../../x.docx", b"PK rubbish", "x.docx cannot be read: it is damaged"),
        ("a.txt", b"  \n", "a.txt has no text"),
        ("a.txt", b"\xff\xfa\xfb rubbish", "a.txt"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    run: Running, name: str, data: bytes, message: str
) -> None:
    answer = add(run, name, data)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["code"] == "unreadable_file"
    assert error["message"].startswith(message) and "\n" not in error["message"]


def test_a_file_may_be_larger_than_other_bodies(run: Running) -> None:
    assert add(run, "long.txt", b"word " * 500_000, "3" * 24).status_code == 201
    huge = add(run, "huge.txt", b"x" * (MAX_FILE + 1))
    assert huge.status_code == 413 and "larger than 20,000,000 bytes" in huge.text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "file"}, "takes a `file_id`"),
        ({"type": "file", "file": {"file_data": "data:…"}}, "takes a `file_id`"),
        ({"type": "file", "file": {"file_id": "file-../../x"}}, "is not on the server"),
        ({"type": "file", "file": {"file_id": f"file-{CHAT}-{'0' * 16}"}}, "is not on the server"),
    ],
)
def test_a_part_without_a_known_file_is_refused(
    run: Running, part: dict[str, Any], message: str
) -> None:
    answer = ask(run, "", messages=[{"role": "user", "content": [part]}])
    assert answer.status_code in (400, 404) and message in answer.json()["error"]["message"]


def test_only_users_have_files(run: Running) -> None:
    id = add(run, "a.txt", b"one").json()["id"]
    part = {"type": "file", "file": {"file_id": id}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [part]}]
    assert "only messages from `user`" in ask(run, "", messages=messages).text


def test_a_chat_and_a_user_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ChatFiles(tmp_path, max_bytes=2000)
    monkeypatch.setattr(chat_files, "MAX_FILES", 2)
    monkeypatch.setattr(chat_files, "MAX_CHARACTERS", 1000)
    files.add("me", CHAT, "a.txt", b"a" * 900)
    with pytest.raises(FilesFull, match="1,000 characters together"):
        files.add("me", CHAT, "b.txt", b"b" * 200)
    files.add("me", CHAT, "b.txt", b"b" * 20)
    with pytest.raises(FilesFull, match="at most 2 files"):
        files.add("me", CHAT, "c.txt", b"c")
    files.add("me", OTHER, "a.txt", b"a" * 900)
    with pytest.raises(FilesFull, match="your files take more than 0 MB"):
        files.add("me", "c" * 24, "a.txt", b"a")
    assert files.add("you", CHAT, "a.txt", b"a")


def test_a_sweep_forgets_chats_that_are_gone(tmp_path: Path) -> None:
    files = ChatFiles(tmp_path)
    kept, gone = (files.add("key:1", chat, "a.txt", b"text").id for chat in (CHAT, OTHER))
    files.sweep(lambda user, chat: (user, chat) == ("key:1", CHAT), before=0.0)
    assert files.document("key:1", gone)
    files.sweep(lambda user, chat: (user, chat) == ("key:1", CHAT), before=2e10)
    assert files.document("key:1", kept)
    with pytest.raises(NoFile):
        files.document("key:1", gone)


def test_a_start_of_the_server_forgets_the_files_of_deleted_chats(tmp_path: Path) -> None:
    store, files = ConversationStore(tmp_path / "web.db"), ChatFiles(tmp_path / "files")
    kept, gone = (files.add("owner", chat, "a.txt", b"text").id for chat in (CHAT, OTHER))
    store.put("owner", CHAT, "title", b"{}", 0)
    forget_old_files(store, files, now=time.time() + 80_000)
    assert files.document("owner", gone)
    forget_old_files(store, files, now=time.time() + 90_000)
    store.close()
    assert files.document("owner", kept)
    with pytest.raises(NoFile):
        files.document("owner", gone)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("C:\\docs\\a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("a\n\u202eb.txt", "ab.txt"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
        ("/", "file.txt"),
        ("a." + "x" * 300, "a." + "x" * 118),
    ],
)
def test_names_are_one_short_line(name: str, shown: str) -> None:
    assert plain_name(name) == shown
