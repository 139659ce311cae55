"""The web page's conversations on the server, for `--history`: one JSON value each, kept for the user (an API key, or whoever runs the server) who
wrote it.

GET /api/settings, GET /api/conversations, and GET, PUT, DELETE /api/conversations/{id}. A PUT says which version it replaces (`If-Match`, or
`If-None-Match: *` for a new one), so that two windows never overwrite each other: the second gets a 412 and merges.
"""

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header
from fastapi import Path as InPath
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from llmchat import __version__
from llmchat.errors import IntegrityError
from llmchat.server import local_peer
from llmchat.server.errors import BadRequest, Forbidden, Refusal
from llmchat.server.middleware import OWNER
from llmchat.settings import private_file

# For each user. A page that is out of hand must not fill the disk.
MAX_CONVERSATIONS = 2000
MAX_BYTES = 256_000_000
_SHAPE = 3
_TABLE = """
CREATE TABLE conversations (
    user    TEXT NOT NULL,
    id      TEXT NOT NULL,
    title   TEXT NOT NULL,
    -- Seconds since 1970, by the server's clock.
    updated REAL NOT NULL,
    version INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    -- As the page wrote it.
    value   BLOB NOT NULL,
    pinned  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, id)
) WITHOUT ROWID;
"""


class VersionConflict(Refusal):
    """The conversation is not the one that this write would replace."""

    status = 412

    def __init__(self) -> None:
        super().__init__("the conversation was changed elsewhere", code="version_conflict")


class StorageFull(Refusal):
    status = 507


class ConversationNotFound(Refusal):
    status = 404

    def __init__(self) -> None:
        super().__init__("there is no such conversation", code="not_found")


class PreconditionRequired(Refusal):
    status = 428

    def __init__(self) -> None:
        super().__init__(
            'say what the write replaces: `If-Match: "VERSION"`, or `If-None-Match: *` for a new conversation'
        )


class ConversationSummary(Struct, frozen=True):
    """A conversation in the list. updated: milliseconds since 1970, as the page counts."""

    id: str
    title: str
    updated: float
    version: int
    pinned: bool = False


class ConversationStore:
    """The SQLite file at `path`, for any thread. What a method has written is on disk when it returns."""

    def __init__(
        self,
        path: Path,
        *,
        max_conversations: int = MAX_CONVERSATIONS,
        max_bytes: int = MAX_BYTES,
        before: Mapping[str, str] = MappingProxyType({}),
    ):
        """before: who the users of a file of the first shape are now."""
        private_file(path)
        self._before = before
        self._most = max_conversations, max_bytes
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            path, timeout=10.0, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise IntegrityError(f"{path} cannot be read: {error}") from error

    def _prepare(self, path: Path) -> None:
        with self._writing() as database:
            (shape,) = database.execute("PRAGMA user_version").fetchone()
            if shape > _SHAPE:
                raise IntegrityError(f"{path} was written by a newer llmchat")
            if shape == 0:
                database.execute(_TABLE)
            if shape == 1:
                for old, new in self._before.items():
                    database.execute(
                        "UPDATE OR IGNORE conversations SET user = ? WHERE user = ?", (new, old)
                    )
            if shape in (1, 2):
                database.execute(
                    "ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0"
                )
            if shape < _SHAPE:
                database.execute(f"PRAGMA user_version = {_SHAPE}")

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise StorageFull(f"the server cannot store it: {error}") from error
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def list(self, user: str) -> list[ConversationSummary]:
        """Latest first."""
        query = "SELECT id, title, updated, version, pinned FROM conversations WHERE user = ? ORDER BY updated DESC, id"
        with self._lock:
            rows = self._database.execute(query, (user,)).fetchall()
        return [
            ConversationSummary(id, title, 1000 * updated, version, bool(pinned))
            for id, title, updated, version, pinned in rows
        ]

    def get(self, user: str, id: str) -> tuple[int, bytes]:
        """Version and value. Raises ConversationNotFound."""
        query = "SELECT version, value FROM conversations WHERE user = ? AND id = ?"
        with self._lock:
            row = self._database.execute(query, (user, id)).fetchone()
        if row is None:
            raise ConversationNotFound
        return row[0], row[1]

    def put(
        self, user: str, id: str, title: str, value: bytes, replaces: int, pinned: bool = False
    ) -> int:
        """Keep `value` in the place of version `replaces`, 0 for a new one; returns its version. Raises VersionConflict, ConversationNotFound or StorageFull."""
        with self._writing() as database:
            row = database.execute(
                "SELECT version, bytes FROM conversations WHERE user = ? AND id = ?", (user, id)
            ).fetchone()
            if row is None and replaces:
                raise ConversationNotFound
            if row is not None and row[0] != replaces:
                raise VersionConflict
            self._check_room(user, row, len(value))
            database.execute(
                "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (user, id, title, time.time(), replaces + 1, len(value), value, pinned),
            )
        return replaces + 1

    def remove(self, user: str, id: str) -> None:
        """Raises ConversationNotFound."""
        with self._writing() as database:
            if not database.execute(
                "DELETE FROM conversations WHERE user = ? AND id = ?", (user, id)
            ).rowcount:
                raise ConversationNotFound

    def _check_room(self, user: str, old: tuple[int, int] | None, size: int) -> None:
        query = "SELECT count(*), coalesce(sum(bytes), 0) FROM conversations WHERE user = ?"
        count, total = self._database.execute(query, (user,)).fetchone()
        most, most_bytes = self._most
        if old is None and count >= most:
            raise StorageFull(f"{most:,} conversations are kept, and no more; delete some")
        if total - (old[1] if old else 0) + size > most_bytes:
            raise StorageFull(
                f"the conversations would take more than {most_bytes / 1e6:,.0f} MB; delete some"
            )


class Written(Struct):
    """The body of a PUT. conversation: any JSON object, which is kept byte for byte."""

    title: Annotated[str, msgspec.Meta(max_length=200)]
    conversation: msgspec.Raw
    pinned: bool = False


Id = Annotated[str, InPath(pattern=r"^[0-9a-f]{24}$")]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["title", "conversation"],
                    "properties": {
                        "title": {"type": "string", "maxLength": 200},
                        "conversation": {"type": "object"},
                        "pinned": {"type": "boolean"},
                    },
                }
            }
        },
    }
}


def _told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": "An error in OpenAI's form."} for status in statuses}


def router(store: ConversationStore | None) -> APIRouter:
    """None: no history here, and /api/settings says so. The user of a request is `request.state.user`."""
    routes = APIRouter(prefix="/api")

    @routes.get("/settings")
    async def settings() -> dict[str, Any]:
        return {"history": store is not None, "version": __version__}

    if store is not None:
        _add_conversations(routes, store)
    return routes


def _user(request: Request) -> str:
    """Who asks. Without a key it must be the user who runs the server: others of this machine reach its address too."""
    if request.state.user is not None:
        return str(request.state.user)
    if not local_peer.is_same_user(request.scope.get("client"), request.scope.get("server")):
        raise Forbidden(
            "these conversations are of the user who runs the server; `llmchat serve keys add NAME` gives others their own"
        )
    return OWNER


# By FastAPI in a thread, because the kernel's table is read.
User = Annotated[str, Depends(_user)]


def _add_conversations(routes: APIRouter, store: ConversationStore) -> None:
    @routes.get("/conversations")
    def listed(user: User) -> Response:
        return _json({"object": "list", "data": store.list(user)})

    @routes.get("/conversations/{id}", responses=_told(404))
    def get(user: User, id: Id) -> Response:
        version, value = store.get(user, id)
        return _json({"id": id, "version": version, "conversation": msgspec.Raw(value)}, version)

    @routes.put(
        "/conversations/{id}", openapi_extra=_BODY, responses=_told(400, 404, 412, 428, 507)
    )
    async def put(
        request: Request,
        user: User,
        id: Id,
        if_match: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        replaces = _replaced(if_match, if_none_match)
        title, value, pinned = _written(await request.body())
        version = await run_in_threadpool(store.put, user, id, title, value, replaces, pinned)
        return _json({"id": id, "version": version}, version)

    @routes.delete("/conversations/{id}", status_code=204, responses=_told(404))
    def remove(user: User, id: Id) -> None:
        store.remove(user, id)


def _replaced(if_match: str | None, if_none_match: str | None) -> int:
    if if_none_match == "*" and if_match is None:
        return 0
    version = re.fullmatch(r'"([1-9]\d{0,17})"', if_match or "", re.ASCII)
    if version is None or if_none_match is not None:
        raise PreconditionRequired
    return int(version[1])


def _written(body: bytes) -> tuple[str, bytes, bool]:
    try:
        body.decode()
        written = msgspec.json.decode(body, type=Written)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the body is no conversation: {error}") from error
    value = bytes(written.conversation)
    if not value.lstrip().startswith(b"{"):
        raise BadRequest(
            "the body is no conversation: `conversation` is no object", param="conversation"
        )
    return written.title, value, written.pinned


def _json(value: object, version: int | None = None) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"ETag": f'"{version}"'} if version else {})
    return Response(msgspec.json.encode(value), media_type="application/json", headers=headers)
