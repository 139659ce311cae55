"""A Hub on 127.0.0.1: the part of the Hub's protocol that downloads use, with faults on demand.

It serves model info, HEAD and ranged GET on resolve with ETag, commit and size headers. As a test
asks, it answers 401, 403 gated, 404, 429 and 5xx, cuts connections after some bytes, stops sending,
ignores ranges and sends wrong bytes. With `cdn`, large files are on a second server, as on the real
Hub: resolve redirects there with the headers of linked files and of xet. `attacks` answer instead.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

LARGE = (".safetensors", ".bin", ".gguf")


@dataclass
class Repo:
    """Files of a model at one commit. `branches` name it."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    listed: bool = False  # the list of a gated repo is public, as it is on the real Hub
    licence: str = ""

    @classmethod
    def of_folder(cls, folder: Path, **options: Any) -> "Repo":
        return cls(
            {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            },
            **options,
        )


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    port: int = 0


@dataclass
class Hub:
    """The repos that are served, what goes wrong, and what was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_secret"
    fail_with: dict[str, int] = field(default_factory=dict)  # part of a path → HTTP status
    cut_after: list[int] = field(
        default_factory=list
    )  # for each download of weights in turn: bytes until the connection is cut
    times: dict[str, int] = field(
        default_factory=dict
    )  # part of a path → how often it fails; for ever where it is not named
    retry_after: str = "0"
    wrong_bytes: bool = False  # of weights; a header, which is asked for by its range, is right
    ignore_ranges: bool = False
    stall_after: int | None = (
        None  # bytes of weights after which a download of them hangs until `released`
    )
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    sent: int = 0  # bytes of file content
    url: str = ""
    cdn: bool = False
    cdn_url: str = ""
    # Part of a path → function that answers instead; `times` counts as for fail_with.
    attacks: dict[str, "Callable[[Any], Any]"] = field(default_factory=dict)

    def downloads(self) -> list[Request]:
        return [
            request
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        ]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    servers = [
        _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) for _ in range(2)
    ]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        hub.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def etag_of(name: str, content: bytes) -> str:
    """sha256 of large files, git's blob id of small ones."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        """Making a repo and committing to it, every file inside the commit itself."""
        path = unquote(urlparse(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        authorization = self.headers.get("Authorization", "")
        self.hub.requests.append(
            Request("POST", path, None, authorization.removeprefix("Bearer ") or None)
        )
        parts = path.strip("/").split("/")
        if authorization != f"Bearer {self.hub.token}":
            return self.error(401, "", "Invalid credentials")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.hub.repos.setdefault(
                name,
                Repo(
                    {}, private=bool(asked.get("private")) or asked.get("visibility") == "private"
                ),
            )
            return self._json({"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        if len(parts) > 4 and parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if len(parts) > 4 and parts[4] == "commit":
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.hub.repos[name].files[line["value"]["path"]] = base64.b64decode(
                        line["value"]["content"]
                    )
            return self._json(
                {"commitUrl": f"{self.hub.url}/{name}/commit/{'d' * 40}", "commitOid": "d" * 40}
            )
        self.error(404, "", "not found")

    def _chunks(self) -> bytes:
        """A body that comes in chunks."""
        body = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (
            size := int(self.rfile.readline(), 16)
        ):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlparse(self.path).path)
        authorization = self.headers.get("Authorization", "")
        self.hub.requests.append(
            Request(
                self.command,
                path,
                self.headers.get("Range"),
                authorization.removeprefix("Bearer ") or None,
                self.server.server_port,
            )
        )
        attack = next(
            (
                attack
                for part, attack in self.hub.attacks.items()
                if part in path and self._fails(part)
            ),
            None,
        )
        if attack:
            return attack(self)
        self.usual(path)

    def usual(self, path: str) -> None:
        """What a Hub in order answers, but for `fail_with`."""
        status = next(
            (
                status
                for part, status in self.hub.fail_with.items()
                if part in path and self._fails(part)
            ),
            0,
        )
        if status:
            return self.error(status, "", "the test asked for it")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        if parts[0] == "cdn":
            return self._content(self.hub.repos["/".join(parts[1:3])], "/".join(parts[3:]))
        self.error(404, "", "not found")

    def _fails(self, part: str) -> bool:
        left = self.hub.times.get(part, 1)
        if part in self.hub.times:
            self.hub.times[part] = left - 1
        return left > 0

    def _repo(self, name: str, revision: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repo is None or (repo.private and not allowed):
            self.error(404 if allowed else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and not allowed and not (repo.listed and "/api/" in self.path):
            self.error(
                403 if self.headers.get("Authorization") else 401,
                "GatedRepo",
                "Access to this model is restricted",
            )
        elif revision not in (repo.commit, *repo.branches):
            self.error(404, "RevisionNotFound", "Invalid rev id")
        else:
            return repo
        return None

    def _info(self, name: str, revision: str) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            return
        siblings = []
        for path, content in repo.files.items():
            entry: dict[str, Any] = {
                "rfilename": path,
                "size": len(content),
                "blobId": etag_of("", content),
            }
            if path.endswith(LARGE):
                entry["lfs"] = {
                    "sha256": etag_of(path, content),
                    "size": len(content),
                    "pointerSize": 134,
                }
            siblings.append(entry)
        body = json.dumps(
            {
                "id": name,
                "modelId": name,
                "sha": repo.commit,
                "private": repo.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "gated": "auto" if repo.gated else False,
                "cardData": {"license": repo.licence} if repo.licence else {},
                "siblings": siblings,
            }
        ).encode()
        self.head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _file(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            return
        content = repo.files.get(path)
        if content is None:
            return self.error(404, "EntryNotFound", "Entry not found")
        if self.hub.cdn and path.endswith(LARGE):
            etag = etag_of(path, content)
            linked = {
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(len(content)),
                "X-Xet-Hash": etag,
                "X-Repo-Commit": repo.commit,
            }
            target = f"{self.hub.cdn_url}/cdn/{name}/{path}?X-Amz-Signature=secret"
            return self.head(302, {**linked, "Location": target, "Content-Length": "0"})
        self._content(repo, path)

    def _content(self, repo: Repo, path: str) -> None:
        content = repo.files[path]
        asked = None if self.hub.ignore_ranges else self.headers.get("Range")
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, len(content)) if last else len(content)
        headers = {
            "ETag": f'"{etag_of(path, content)}"',
            "X-Repo-Commit": repo.commit,
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - start),
        }
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self.head(206 if asked else 200, headers)
        if self.command == "GET":
            whole = path.endswith(LARGE) and end == len(content)
            wrong = self.hub.wrong_bytes and path.endswith(LARGE) and not (asked and last)
            self._send(bytes(len(content)) if wrong else content, start, end, weights=whole)

    def _send(self, content: bytes, start: int, last: int, weights: bool) -> None:
        cuts = self.hub.cut_after if weights else []
        end = min(last, start + cuts.pop(0)) if cuts else last
        if weights and self.hub.stall_after is not None and start + self.hub.stall_after < end:
            middle = start + self.hub.stall_after
            self.wfile.write(content[start:middle])
            self.wfile.flush()
            self.hub.sent += middle - start
            self.hub.released.wait(60)
            start = middle
        self.wfile.write(content[start:end])
        self.hub.sent += end - start
        if end < last:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def error(self, status: int, code: str, message: str) -> None:
        self.head(
            status,
            {
                "X-Error-Code": code,
                "X-Error-Message": message,
                "Content-Length": "0",
                **({"Retry-After": self.hub.retry_after} if status in (429, 503) else {}),
            },
        )

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
