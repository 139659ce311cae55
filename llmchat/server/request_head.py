"""Checks of a request's head: one plain path, one Host, one way to find the end of the body.

A head that two programs could parse differently (RFC 9112, sections 3.2 and 6.3) is refused.
"""

import re

from starlette.types import Scope

from llmchat.server.errors import BadRequest

# A name, an IPv4 address, or an IPv6 address in brackets, with an optional port. Unlike Starlette's
# own pattern, this one excludes characters such as `%`, `@` and `,`.
_HOST = re.compile(
    r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_][a-z0-9_.-]{0,253})(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)
_SINGLE_HEADERS = (
    b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin",
)  # fmt: skip


def check_head(scope: Scope) -> None:
    """Raises BadRequest."""
    target = scope.get("raw_path") or scope["path"].encode()
    if not target.startswith(b"/") and (scope["method"], target) != ("OPTIONS", b"*"):
        raise BadRequest("the request target must be a path; this server is not a proxy")
    names = [name for name, _ in scope["headers"]]
    ambiguous = b"content-length" in names or scope["http_version"] == "1.0"
    if b"transfer-encoding" in names and ambiguous:
        raise BadRequest(
            "the request has both Content-Length and Transfer-Encoding, or uses chunks in HTTP/1.0"
        )
    for name in _SINGLE_HEADERS:
        if names.count(name) > 1:
            raise BadRequest(f"duplicate header: {name.decode().title()}")


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without the port; "" if there is none.

    Raises BadRequest for an invalid header.
    """
    if not host:
        return ""
    found = _HOST.fullmatch(host)
    if found is None:
        raise BadRequest("invalid Host header: not a name with an optional port")
    return found[1].lower()
