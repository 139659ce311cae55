"""What the head of a request must look like before anything else is asked: one plain target, one Host, one way to tell where the body ends.

What two programs could read in two ways (RFC 9112, sections 3.2 and 6.3) is refused, whoever sends it.
"""

import re
from collections.abc import MutableMapping
from typing import Any

from llmchat.server.errors import BadRequest

Scope = MutableMapping[str, Any]
# A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port; no userinfo, no path, no space.
_HOST = re.compile(
    r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_][a-z0-9_.-]{0,253})(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)


def check(scope: Scope) -> None:
    """Raises BadRequest."""
    target = scope.get("raw_path") or scope["path"].encode()
    if not target.startswith(b"/") and (scope["method"], target) != ("OPTIONS", b"*"):
        raise BadRequest("the target of the request must be a path; this server is not a proxy")
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and (
        b"content-length" in names or scope["http_version"] == "1.0"
    ):
        raise BadRequest(
            "the length of the body is given in two ways: Content-Length and Transfer-Encoding"
        )
    for name in (b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin"):
        if names.count(name) > 1:
            raise BadRequest(f"the header {name.decode().title()} is given more than once")


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without the port; "" for none. Raises BadRequest for what is not a Host."""
    if not host:
        return ""
    found = _HOST.fullmatch(host)
    if found is None:
        raise BadRequest("the Host header is not a name with an optional port")
    return found[1].lower()
