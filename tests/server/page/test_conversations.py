"""The web page's conversations on the server: versions, users, limits, and bodies of ill will."""

import hashlib
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.page_server import Script, serving

from llmchat.errors import IntegrityError
from llmchat.server import page
from llmchat.server.conversation_store import (
    ConversationNotFound,
    ConversationStore,
    StorageFull,
    VersionConflict,
)

pytestmark = pytest.mark.slow

ONE, TWO = "0" * 24, "1" * 24
URL = f"/api/conversations/{ONE}"
NEW = {"If-None-Match": "*"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    store = ConversationStore(tmp_path / "web.db", max_conversations=2, max_bytes=100)
    yield store
    store.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx2.Client]:
    with serving(Script(), tmp_path / "web.db") as url, httpx2.Client(base_url=url) as client:
        yield client


def test_a_write_names_the_version_it_replaces(store: ConversationStore) -> None:
    assert store.put("me", ONE, "First", b'{"a":1}', 0) == 1
    assert store.put("me", ONE, "Second", b'{"a":2}', 1) == 2
    with pytest.raises(VersionConflict):
        store.put("me", ONE, "Lost", b"{}", 1)
    with pytest.raises(VersionConflict):
        store.put("me", ONE, "Lost", b"{}", 0)
    with pytest.raises(ConversationNotFound):
        store.put("me", TWO, "Lost", b"{}", 1)
    assert store.get("me", ONE) == (2, b'{"a":2}')
    assert [(head.id, head.title, head.version) for head in store.list("me")] == [
        (ONE, "Second", 2)
    ]


def test_users_do_not_see_each_other(store: ConversationStore) -> None:
    store.put("me", ONE, "Mine", b'{"mine":1}', 0)
    store.put("you", ONE, "Yours", b'{"yours":1}', 0)
    assert store.get("me", ONE)[1] == b'{"mine":1}'
    store.remove("you", ONE)
    assert [head.title for head in store.list("me")] == ["Mine"] and store.list("you") == []
    with pytest.raises(ConversationNotFound):
        store.get("you", ONE)
    with pytest.raises(ConversationNotFound):
        store.remove("you", ONE)


def test_each_user_has_a_storage_limit(store: ConversationStore) -> None:
    store.put("me", ONE, "", b"{%s}" % (b" " * 58), 0)
    store.put("me", ONE, "", b"{%s}" % (b" " * 88), 1)
    with pytest.raises(StorageFull, match="MB"):
        store.put("me", TWO, "", b"{%s}" % (b" " * 58), 0)
    store.put("me", TWO, "", b"{}", 0)
    with pytest.raises(StorageFull, match="2 conversations"):
        store.put("me", "2" * 24, "", b"{}", 0)
    store.put("you", TWO, "", b"{}", 0)


def test_one_of_many_writers_wins(store: ConversationStore) -> None:
    store.put("me", ONE, "", b"{}", 0)
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.put("me", ONE, "", b"%d" % number, 1)
        except VersionConflict:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and store.get("me", ONE) == (2, b"%d" % won[0])


def test_the_file_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "data" / "web.db"
    store = ConversationStore(file)
    store.put("me", ONE, "Kept", b"{}", 0)
    store.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = ConversationStore(file)
    assert [head.title for head in again.list("me")] == ["Kept"]
    again.close()


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "web.db"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(IntegrityError, match=r"cannot read .*web\.db"):
        ConversationStore(file)


def test_over_http(client: httpx2.Client) -> None:
    assert client.get("/api/settings").json()["history"] is True
    value = {"title": "Ünï", "conversation": {"text": "½ 😀", "nested": [1, {"a": None}]}}
    made = client.put(URL, json=value, headers=NEW)
    assert (made.status_code, made.json()["version"], made.headers["etag"]) == (200, 1, '"1"')
    assert client.get(URL).json() == {
        "id": ONE,
        "version": 1,
        "conversation": value["conversation"],
    }
    assert client.put(URL, json=value, headers={"If-Match": '"1"'}).json()["version"] == 2
    stale = client.put(URL, json=value, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "version_conflict")
    assert client.put(URL, json=value, headers=NEW).status_code == 412
    (head,) = client.get("/api/conversations").json()["data"]
    assert (head["id"], head["title"], head["version"]) == (ONE, "Ünï", 2) and head[
        "updated"
    ] > 1e12
    assert client.delete(URL).status_code == 204
    assert client.get(URL).status_code == client.delete(URL).status_code == 404


def test_without_history_the_routes_do_not_exist() -> None:
    with serving(Script()) as url, httpx2.Client(base_url=url) as client:
        assert client.get("/api/settings").json()["history"] is False
        assert client.get("/api/conversations").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"If-Match": "*"},
        {"If-Match": '"0"'},
        {"If-Match": "1"},
        {"If-Match": '"' + "9" * 40 + '"'},
        NEW | {"If-Match": '"1"'},
    ],
)
def test_a_write_without_a_version_is_refused(
    client: httpx2.Client, headers: dict[str, str]
) -> None:
    answer = client.put(URL, json={"title": "", "conversation": {}}, headers=headers)
    assert answer.status_code == 428 and "If-Match" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"title": "a"}', b'{"title": "a", "conversation": [1]}',
     b'{"title": "a", "conversation": {"x": NaN}}',
     b'{"title": "a", "conversation": {"x": "\xff"}}', b'{"title": "\\ud800", "conversation": {}}',
     b'{"title": "a", "conversation": ' + b'{"a":' * 50_000,
     json.dumps({"title": "a" * 201, "conversation": {}}).encode()],
    ids=lambda body: body[:40].decode("latin-1"),
)  # fmt: skip
def test_invalid_conversations_are_refused(client: httpx2.Client, body: bytes) -> None:
    answer = client.put(URL, content=body, headers=NEW)
    assert answer.status_code == 400 and "invalid conversation" in answer.json()["error"]["message"]
    assert client.get("/api/conversations").json()["data"] == []


@pytest.mark.parametrize("name", ["x", "0" * 23, "0" * 25, "A" * 24, "..%2f" + "0" * 19])
def test_an_id_is_24_hexadecimal_digits(client: httpx2.Client, name: str) -> None:
    assert client.put(
        f"/api/conversations/{name}", json={"title": "", "conversation": {}}, headers=NEW
    ).status_code in (404, 422)


def test_the_page_is_served_under_its_policy(client: httpx2.Client) -> None:
    index = client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert (
        "require-trusted-types-for 'script'" in index.headers["content-security-policy"]
        and "unsafe" not in index.headers["content-security-policy"]
    )
    assert (
        "<script>" not in index.text
        and "style=" not in index.text
        and "http:" not in index.text
        and "https:" not in index.text
    )
    for name in ("main.js", "style.css", "icon.svg", "vendor/marked.esm.js"):
        file = client.get(f"/page/{name}")
        assert (
            file.status_code == 200
            and file.headers["content-security-policy"] == index.headers["content-security-policy"]
        )
        again = client.get(
            f"/page/{name}", headers={"If-None-Match": f'W/"x", {file.headers["etag"]}'}
        )
        assert (
            again.status_code == 304
            and again.content == b""
            and again.headers["etag"] == file.headers["etag"]
        )
    assert client.get("/page/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.head("/").headers["content-length"] == str(len(index.content))
    for name in ("../conversations.py", "..%2fconversations.py", "__init__.py", "vendor", ""):
        assert client.get(f"/page/{name}").status_code == 404


def test_vendored_libraries_match_their_checksums() -> None:
    folder = Path(page.__file__).parent / "vendor"
    readme = (folder / "README.md").read_text("utf-8")
    for file in folder.glob("*.js"):
        assert (
            f"`{file.name}`" in readme and hashlib.sha256(file.read_bytes()).hexdigest() in readme
        )
