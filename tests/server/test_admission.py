"""Access control: keys, host names, ambiguous request heads, and the owners of conversations."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.serving import ASK, Running, model_spec, raw, serving
from support.worlds import make_world

from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.server import local_peer
from llmchat.server.access_control import OWNER
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.keys import Keys
from llmchat.server.run import serve
from llmchat.server.serve_options import ServeOptions

MODELS = {"m": model_spec(lambda: ScriptedEngine(["Hello there."]))}
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
ONE = f"/api/conversations/{'0' * 24}"
NEW = {"if-none-match": "*"}
KEPT = {"title": "t", "conversation": {"text": "my secret"}}


def asked(run: Running, path: str = "/v1/models", **headers: str) -> int:
    return run.http.get(path, headers=headers).status_code


def test_removing_the_last_key_admits_no_one(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.add("ann")
    for host in ("127.0.0.1", "0.0.0.0"):
        with serving(MODELS, tmp_path, host=host) as run:
            assert asked(run, authorization=f"Bearer {secret}") == 200
            keys.remove("ann")
            assert asked(run) == asked(run, authorization=f"Bearer {secret}") == 401
            assert run.http.post("/v1/chat/completions", json=ASK).status_code == 401
            keys.file.unlink()
            assert asked(run) == 401 and asked(run, "/health") == 200
            secret = keys.add("ann")
            assert asked(run, authorization=f"Bearer {secret}") == 200


def test_another_address_never_answers_without_a_key(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, host="0.0.0.0") as run:
        assert asked(run) == 401


def test_creating_a_key_makes_a_running_server_require_keys(
    tmp_path: Path,
) -> None:
    keys = Keys(tmp_path / "keys.json")
    with serving(MODELS, tmp_path) as run:
        assert asked(run) == 200
        keys.add("ann")
        assert asked(run) == 401
        keys.remove("ann")
        assert asked(run) == 401


@pytest.mark.parametrize(
    "host",
    [
        "[::1].evil.example", "[::1]@evil.example", "localhost:x@evil.example",
        "localhost:80@evil.example", "localhost:evil.example", "evil.example",
        "localhost.evil.example", "localhost@evil.example", "localhost/evil.example",
        "localhost evil.example", "localhost,evil.example", "localhost.", "localhost:123456",
        "[::1", "::1", "127.0.0.1.evil.example", "127.1", "0x7f000001",
        "localhost\u00df",
    ],
)  # fmt: skip
def test_other_host_names_are_refused(tmp_path: Path, host: str) -> None:
    with serving(MODELS, tmp_path) as run:
        answer = raw(
            run,
            b"GET /v1/models HTTP/1.1\r\nConnection: close\r\nHost: "
            + host.encode("latin-1")
            + b"\r\n\r\n",
        )
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), answer[:80]


def test_its_own_host_names_pass_in_every_notation(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, names=("Box.Example",)) as run:
        for host in (
            "localhost",
            "LocalHost:8000",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8000",
            "box.example:443",
            "BOX.example",
        ):
            assert asked(run, host=host) == 200, host


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_ambiguous_heads_are_refused(tmp_path: Path, head: bytes) -> None:
    with serving(MODELS, tmp_path) as run:
        smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = raw(run, head + (smuggled if head.startswith(b"POST") else b""), wait_s=3)
        assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1, answer[:300]


def test_unknown_paths_require_a_key_too(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    keys.add("ann")
    with serving(MODELS, tmp_path) as run:
        for path in (
            "//v1/models",
            "/v1",
            "/docs",
            "/redoc",
            "/metrics/",
            "/x",
            "/pages",
            "/v1%2Fmodels",
            "/health/x",
        ):
            assert asked(run, path) == 401, path
        assert asked(run, "/") == asked(run, "/page/main.js") == 200


def test_only_the_user_who_runs_the_server_may_unload_models(tmp_path: Path) -> None:
    secret = Keys(tmp_path / "keys.json").add("ann")
    key = {"authorization": f"Bearer {secret}"}
    with serving(MODELS, tmp_path) as run:
        assert run.http.post("/v1/chat/completions", json=ASK, headers=key).status_code == 200
        assert run.http.post("/api/stop", json={}, headers=key).status_code == 403
        assert [row["name"] for row in run.http.get("/api/ps", headers=key).json()["models"]] == [
            "test"
        ]


def test_a_reused_key_name_inherits_no_conversations(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    first = {"authorization": f"Bearer {keys.add('ann')}"}
    with serving(MODELS, tmp_path, history=True) as run:
        assert run.http.put(ONE, json=KEPT, headers=NEW | first).status_code == 200
        keys.remove("ann")
        second = {"authorization": f"Bearer {keys.add('ann')}"}
        assert run.http.get(ONE, headers=second).status_code == 404
        assert run.http.get("/api/conversations", headers=second).json()["data"] == []


def test_conversations_of_an_earlier_version_keep_their_users(tmp_path: Path) -> None:
    file = tmp_path / "web.db"
    old = ConversationStore(file)
    for user in ("ann", "127.0.0.1", "gone"):
        old.put(user, "0" * 24, user, b"{}", 0)
    old.close()
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE conversations DROP COLUMN pinned")
        database.execute("PRAGMA user_version = 1")
    database.close()
    now = ConversationStore(file, renamed_users={"ann": "key:1", "127.0.0.1": OWNER})
    assert [
        [head.title for head in now.list(user)] for user in ("key:1", OWNER, "gone", "ann")
    ] == [["ann"], ["127.0.0.1"], ["gone"], []]
    now.close()


def test_without_keys_conversations_belong_to_the_servers_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(MODELS, tmp_path, history=True) as run:
        assert run.http.put(ONE, json=KEPT, headers=NEW).status_code == 200
        assert run.http.get(ONE).json()["conversation"] == {"text": "my secret"}
        monkeypatch.setattr(local_peer.os, "getuid", lambda: os.geteuid() + 1)
        for path in (ONE, "/api/conversations"):
            refused = run.http.get(path)
            assert refused.status_code == 403 and "secret" not in refused.text
        assert (
            run.http.delete(ONE).status_code == 403
            and run.http.put(ONE, json=KEPT, headers=NEW).status_code == 403
        )
        assert run.http.post("/v1/chat/completions", json=ASK).status_code == 200


# Lines of /proc/net/tcp and tcp6: IPv4, IPv6, IPv4 of a dual-stack socket, and a closed socket.
_V6 = "000000000000000000000000"
_MAPPED = "0000000000000000FFFF0000"
TABLE = f"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C350 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  1000        0 40001 1
   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1001        0 40002 1
   2: {_V6}01000000:C351 {_V6}01000000:1F40 01 0:0 00:0 0  1002        0 40003 1
   3: {_MAPPED}0100007F:C352 {_MAPPED}0100007F:1F40 01 0:0 00:0 0  1003        0 40004 1
   4: 0100007F:C353 0100007F:1F40 06 00000000:00000000 00:00000000 00000000     0        0 0 1
"""


def test_the_owner_of_a_socket_is_found_in_the_kernels_table() -> None:
    def owner(host: str, port: int) -> int | None:
        return local_peer.owner((host, port), (host, 8000), TABLE.splitlines())

    assert (owner("127.0.0.1", 50000), owner("::1", 50001), owner("127.0.0.1", 50002)) == (
        1000,
        1002,
        1003,
    )
    assert owner("127.0.0.1", 50003) is None, "the kernel lists a closed socket as root's"
    assert owner("127.0.0.1", 50009) is None


def test_history_without_keys_is_refused_on_systems_that_cannot_identify_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_peer, "SUPPORTED", False)
    with pytest.raises(UsageError, match="--history requires an API key"):
        serve(make_world(tmp_path), {}, ServeOptions(history=True, port=0))


def test_the_files_of_a_background_server_are_private(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    log = tmp_path / ".local/state/llmchat/serve.log"
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier version")
    log.chmod(0o644)
    command = [sys.executable, "-m", "llmchat", "serve", "--port", "0"]
    assert (
        subprocess.run(
            [*command, "--background", "--history"], env=env, capture_output=True, timeout=60
        ).returncode
        == 0
    )
    try:
        found = {
            path.name: path.stat().st_mode & 0o777
            for path in tmp_path.rglob("*")
            if path.is_file() or path.is_socket()
        }
    finally:
        subprocess.run([*command, "--stop"], env=env, capture_output=True, timeout=60)
    assert {"serve.log", "serve.sock", "web.db"} <= set(found) and set(found.values()) == {0o600}, (
        found
    )
    assert log.parent.stat().st_mode & 0o777 == 0o700
