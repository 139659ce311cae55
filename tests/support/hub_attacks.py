"""Answers of hostile or broken networks: each function answers a request through its handler."""

import json
from collections.abc import Callable
from typing import Any

PAGE = (
    b"<!DOCTYPE html><html><head><title>Hotel Wi-Fi</title></head>"
    b"<body>Please sign in</body></html>"
)
Attack = Callable[[Any], Any]


def silence(handler: Any) -> None:
    """The connection is taken, and nothing is said."""
    handler.hub.released.wait(60)


def drip(handler: Any, text: bytes) -> None:
    """A byte at a time, until the client has had enough."""
    for byte in text:
        if handler.hub.released.wait(0.02):
            return
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()


def dripping_headers(handler: Any) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000)


def dripping_body(handler: Any) -> None:
    handler.head(200, {"Content-Type": "application/octet-stream", "Content-Length": "4000000"})
    drip(handler, b" " * 100_000)


def dripping_weights(handler: Any) -> None:
    """The header of the tensors, which is asked for by its range, comes as ever."""
    asked = handler.headers.get("Range", "")
    return (
        handler.usual(handler.path) if asked and not asked.endswith("-") else dripping_body(handler)
    )


def endless_list(handler: Any) -> None:
    handler.head(200, {"Content-Type": "application/json"})
    handler.wfile.write(b'{"siblings": [')
    while not handler.hub.released.is_set():
        handler.wfile.write(b'{"rfilename": "a.json", "size": 1}, ' * 10_000)


def web_page(handler: Any) -> None:
    handler.head(
        200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(PAGE))}
    )
    handler.wfile.write(PAGE)


def web_page_as_bytes(handler: Any) -> None:
    """A page that does not say that it is one."""
    handler.head(
        200, {"Content-Type": "application/octet-stream", "Content-Length": str(len(PAGE))}
    )
    handler.wfile.write(PAGE)


def redirect(target: str, status: int = 302) -> Attack:
    return lambda handler: handler.head(status, {"Location": target, "Content-Length": "0"})


def no_target(handler: Any) -> None:
    handler.head(302, {"Content-Length": "0"})


def itself(handler: Any) -> None:
    handler.head(302, {"Location": handler.path, "Content-Length": "0"})


def chunked_and_short(handler: Any) -> None:
    """A body that ends, in good form, before the file does."""
    handler.head(200, {"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"5\r\n" + b"x" * 5 + b"\r\n0\r\n\r\n")


def part(content_range: str | None) -> Attack:
    """206 with these bytes for its range, whatever was asked."""

    def answer(handler: Any) -> None:
        handler.head(
            206,
            {"Content-Length": "1000"}
            | ({"Content-Range": content_range} if content_range else {}),
        )
        handler.wfile.write(b"x" * 1000)

    return answer


def another_file(handler: Any) -> None:
    """The Hub's own headers name other bytes than its list."""
    target = f"{handler.hub.cdn_url}/cdn/org/base/model.safetensors"
    handler.head(
        302,
        {
            "X-Linked-Etag": f'"{"0" * 64}"',
            "X-Linked-Size": "7",
            "Location": target,
            "Content-Length": "0",
        },
    )


def says(value: Any) -> Attack:
    """A list of these bytes, or of this JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()

    def answer(handler: Any) -> None:
        handler.head(200, {"Content-Type": "application/json", "Content-Length": str(len(content))})
        handler.wfile.write(content)

    return answer


SLOW = {silence, dripping_headers, dripping_body, dripping_weights}
