"""Send one GET to a Hub: redirects followed here, the token sent to the Hub alone, bodies bounded.

huggingface_hub's client makes the connections, so that proxies and certificates are those of every
other Hub tool.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

from llmchat.hub.retry import TransferLimits, Watchdog

_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 8
_ERROR_BODY = 64_000
_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
# Headers of the Hub about a file, sent with the redirect to its storage.
_LINKED = ("x-linked-size", "x-linked-etag")


class Fault(OSError):
    """An unusable answer. The text holds no address, because an address may contain a secret."""


class Cut(Fault):
    """The connection ended before the answer did."""


class TooSlow(Fault):
    """The connection is slower than the limits allow."""


class Garbled(Fault):
    """A malformed answer."""


class WrongPart(Fault):
    """Other bytes of a file than those requested."""


class Portal(Fault):
    """A web page instead of an answer: a captive portal asks the user to sign in."""


class Elsewhere(Fault):
    """A refusal by the host that the Hub redirected to."""

    def __init__(self, host: str, status: int):
        super().__init__(f"{host} answers with HTTP {status}")
        self.host, self.status = host, status


class Answer:
    """The head of an answer, and its body in pieces. linked: headers of the Hub about the file."""

    def __init__(self, response: Any, watch: Watchdog, linked: dict[str, str]):
        self._response, self._watch, self.linked = response, watch, linked
        self.status = int(response.status_code)
        self.headers = response.headers
        self.host = str(response.request.url.host)

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. Raises TooSlow where it comes too slowly."""
        for piece in self._response.iter_raw():
            self._watch.advance(len(piece))
            yield piece

    def body(self, most: int) -> bytes:
        """The whole body; of one longer than `most`, its first `most + 1` bytes."""
        content = bytearray()
        for piece in self.pieces():
            content += piece[: most + 1 - len(content)]
            if len(content) > most:
                break
        return bytes(content)

    def refuse_page(self, name: str, beginning: bytes = b"") -> None:
        """Raise Portal when this is a web page instead of the file `name`."""
        kind = str(self.headers.get("Content-Type", "")).lower()
        if not name.endswith((".html", ".htm")) and ("text/html" in kind or _PAGE.match(beginning)):
            raise Portal(self.host)


@contextmanager
def get(
    url: str, headers: dict[str, str], limits: TransferLimits, *, watch: Watchdog | None = None
) -> Iterator[Answer]:
    """The answer to a GET. Raises huggingface_hub's errors for refusals by the Hub, else a Fault.

    watch: a watchdog that the caller can hang up; without one, the answer must be short.
    """
    with watch or Watchdog(limits, longest=10) as watching:
        response: Any = None
        try:
            response, linked = _follow(url, headers, limits, watching)
            answer = Answer(response, watching, linked)
            _refuse_failure(answer, response, _origin(url))
            yield answer
        except Exception as error:
            if watching.slow and not isinstance(error, Fault):
                raise TooSlow(limits.too_slow) from error
            raise
        finally:
            if response is not None:
                response.close()


def _follow(
    url: str, headers: dict[str, str], limits: TransferLimits, watch: Watchdog
) -> tuple[Any, dict[str, str]]:
    """The first answer that is not a redirect. Bodies of redirects are not read."""
    from huggingface_hub.utils import get_session

    client, origin = get_session(), _origin(url)
    linked: dict[str, str] = {}
    for _ in range(_HOPS):
        request = client.build_request(
            "GET",
            url,
            headers={**headers, "Connection": "close"},
            timeout=limits.silence,
            extensions={"trace": watch.trace},
        )
        response = client.send(request, stream=True, follow_redirects=False)
        if response.status_code not in _REDIRECTS:
            return response, linked
        linked |= {name: response.headers[name] for name in _LINKED if name in response.headers}
        target = response.headers.get("Location", "")
        response.close()
        url = _next(url, target)
        if _origin(url) != origin:
            headers = {
                name: value
                for name, value in headers.items()
                if name.lower() not in ("authorization", "cookie")
            }
    raise Garbled(f"more than {_HOPS} redirects")


def _next(url: str, target: str) -> str:
    """The target of a redirect. Raises Garbled where it is invalid or leaves https for http."""
    if not target:
        raise Garbled("a redirect without a target")
    try:
        found = urljoin(url, target)
        scheme, host, _ = _origin(found)
    except ValueError as error:
        raise Garbled("a redirect to no address") from error
    if (
        scheme not in ("http", "https")
        or not host
        or not found.isascii()
        or not found.isprintable()
    ):
        raise Garbled("a redirect to no address")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise Garbled(f"a redirect to {host} without encryption")
    return found


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or {"http": 80, "https": 443}.get(parts.scheme),
    )


def _refuse_failure(answer: Answer, response: Any, hub: tuple[str, str, int | None]) -> None:
    from huggingface_hub.utils import hf_raise_for_status

    if answer.status in (200, 206):
        return
    if answer.status == 511:
        raise Portal(answer.host)
    if answer.status < 400:
        raise Garbled(f"HTTP {answer.status}")
    if _origin(str(response.request.url)) != hub:
        raise Elsewhere(answer.host, answer.status)
    kept = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name.lower().startswith(("x-", "retry-", "ratelimit"))
    ]
    content = answer.body(_ERROR_BODY)
    hf_raise_for_status(
        type(response)(answer.status, headers=kept, content=content, request=response.request)
    )
