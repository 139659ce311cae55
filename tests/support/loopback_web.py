"""A site on 127.0.0.1 for the tools of the web: pages, a SearXNG at /search, faults on demand.

A page is bytes, or a function that writes to the handler what it likes.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """One answer. body: as it is sent, compressed or not."""

    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Reply | Callable[["Handler"], None]


@dataclass
class Site:
    """Pages by path, the results of its search, and what was asked, with the Host header."""

    pages: dict[str, Page] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        self.site.hosts.append(self.headers.get("Host", ""))
        parts = urlsplit(self.path)
        page = self.site.pages.get(parts.path)
        if page is None and parts.path == "/search":
            page = self._found(parse_qs(parts.query))
        if isinstance(page, Reply) or page is None:
            self.send(page or Reply(b"nothing here", status=404))
        else:
            page(self)

    def send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        if reply.kind:
            self.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _found(self, query: dict[str, list[str]]) -> Reply:
        """The answer of SearXNG's JSON API."""
        found = {"query": query["q"][0], "results": self.site.results, "answers": []}
        return Reply(json.dumps(found).encode(), "application/json")


@contextmanager
def serving(site: Site, tls: Any = None, host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve a site. tls: an ssl.SSLContext to serve https with."""
    server = _Server((host, 0), type("_Handler", (Handler,), {"site": site}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def html(text: str, title: str = "A page") -> Reply:
    """A page with a title and a paragraph."""
    page = f"<!doctype html><html><head><title>{title}</title></head><body>{text}</body></html>"
    return Reply(page.encode())
