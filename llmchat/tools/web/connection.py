"""Open an address of the web: each hop is checked, then exactly the checked address is dialled.

The name is resolved once, and the connection goes to that IP address with the name in the Host
header and in TLS, so that a second answer of the name server cannot lead elsewhere. Sizes are
bounded here, and each wait; `child` bounds the whole time and can stop it at any moment.
"""

import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmchat import __version__
from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError
from llmchat.tools.web import addresses
from llmchat.tools.web.addresses import Address

if TYPE_CHECKING:
    import httpx2

_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 8
_TRIED = 4
_STATUS = {
    401: "it requires a sign-in",
    402: "it requires payment",
    403: "it refuses access",
    404: "there is no such page",
    410: "the page is gone",
    429: "too many requests",
    451: "the page is blocked for legal reasons",
}


# ImportError: a SOCKS proxy needs a package.
_FAULTS = (OSError, ValueError, zlib.error, ImportError)


class Access(Struct, frozen=True):
    """What a request may do.

    most: bytes of a body; what is longer is cut. seconds: for the whole request. proxies: by
    scheme, `all` and `no`, as `proxies_of` finds them.
    """

    allow_private: bool = False
    most: int = 2_000_000
    seconds: float = 15.0
    proxies: dict[str, str] = {}


class Loaded(Struct, frozen=True):
    """An answer. url: after redirects. cut: the body was longer than allowed."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False
    fragment: str = ""

    @property
    def kind(self) -> str:
        """The content type without its parameters, such as `text/html`."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """The proxies of an environment: http, https, all, and the hosts that need none."""
    found = {}
    for name in ("http", "https", "all", "no"):
        # As in curl: HTTP_PROXY in capitals may come from a header of a CGI request.
        spellings = [f"{name}_proxy"] + ([f"{name.upper()}_PROXY"] if name != "http" else [])
        if value := next(filter(None, map(env.get, spellings)), None):
            found[name] = value
    return found


def load(url: str, access: Access) -> Loaded:
    """The page at an address. Raises ToolError in one line for every fault."""
    address, end = addresses.parse(url), time.monotonic() + access.seconds
    fragment = address.fragment
    for _ in range(_HOPS):
        with _requested(address, access, end) as response:
            if response.status_code not in _REDIRECTS:
                _refuse_failure(address, response)
                return _read(address, response, access, end, fragment)
            target = response.headers.get("Location", "")
        address = addresses.follow(address, target)
        fragment = address.fragment or fragment
    raise ToolError(f"{address.host} redirects more than {_HOPS} times")


def load_configured(url: str, access: Access) -> Loaded:
    """An answer of a server that the user configured, wherever it is; redirects are refused."""
    address, end = addresses.parse(url), time.monotonic() + access.seconds
    free = Access(True, access.most, access.seconds, access.proxies)
    with _requested(address, free, end, accept="application/json") as response:
        if response.status_code in _REDIRECTS:
            to = excerpt(response.headers.get("Location", ""))
            raise ToolError(f"{address.netloc} redirects to {to}", "configure that address")
        _refuse_failure(address, response)
        return _read(address, response, access, end, "")


@contextmanager
def _requested(
    address: Address, access: Access, end: float, accept: str = ""
) -> Iterator["httpx2.Response"]:
    """The head of an answer. Faults, also those of the body, become ToolErrors."""
    import httpx2

    headers = {
        "User-Agent": f"llmchat/{__version__}",
        "Accept": accept or "text/html,text/plain,text/markdown,application/json;q=0.9,*/*;q=0.5",
        "Accept-Language": "en,*;q=0.5",
        "Accept-Encoding": "gzip, deflate",
    }
    try:
        with _client(address, access, end) as client:
            response = _send(client, address, access, headers, end)
            try:
                yield response
            finally:
                response.close()
    except (*_FAULTS, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ToolError(f"{address.host} cannot be read: {_reason(error)}") from error


def _client(address: Address, access: Access, end: float) -> "httpx2.Client":
    import httpx2

    verify: Any = httpx2.create_ssl_context() if address.scheme == "https" else False
    return httpx2.Client(
        trust_env=False,
        verify=verify,
        proxy=_proxy(address, access),
        timeout=_left(end),
        follow_redirects=False,
    )


def _send(
    client: "httpx2.Client", address: Address, access: Access, headers: dict[str, str], end: float
) -> "httpx2.Response":
    """Send a GET to the checked addresses in turn, until one of them accepts a connection."""
    import httpx2

    if _proxy(address, access):
        _check_for_proxy(address, access)
        return client.send(client.build_request("GET", address.url, headers=headers), stream=True)
    fault: Exception | None = None
    for dialled in _checked(address, access, end)[:_TRIED]:
        request = client.build_request(
            "GET",
            httpx2.URL(address.url).copy_with(host=dialled),
            headers={"Host": address.netloc, **headers},
            extensions={"sni_hostname": address.host.rstrip(".")},
            timeout=_left(end),
        )
        try:
            return client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            fault = error
    raise fault or OSError("it has no address")


def _checked(address: Address, access: Access, end: float) -> list[str]:
    """The IP addresses of a host. Raises ToolError if one of them is not public."""
    own = addresses.literal(address.host)
    found = [str(own)] if own else _resolve(address, end)
    if not access.allow_private:
        for one in found:
            _refuse_private(address, one)
    return found


def _resolve(address: Address, end: float) -> list[str]:
    _left(end)
    infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def _refuse_private(address: Address, ip: str) -> None:
    parsed = addresses.literal(ip)
    if parsed is not None and addresses.is_public(parsed):
        return
    where = ip if ip == address.host else f"{address.host} ({ip})"
    raise ToolError(
        f"{where} is not an address of the public internet", "--allow-private permits it"
    )


def _proxy(address: Address, access: Access) -> str | None:
    """The proxy for an address. Addresses of this machine never need one."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    own = addresses.literal(address.host)
    if (own and own.is_loopback) or address.host == "localhost":
        return None
    if proxy_bypass_environment(address.host, access.proxies):
        return None
    return access.proxies.get(address.scheme) or access.proxies.get("all")


def _check_for_proxy(address: Address, access: Access) -> None:
    """Refuse what is private as far as this machine can tell: the proxy resolves the name."""
    if access.allow_private:
        return
    own = addresses.literal(address.host)
    if own:
        return _refuse_private(address, str(own))
    if addresses.is_local_name(address.host):
        raise ToolError(
            f"{address.host} is a name of the local network", "--allow-private permits it"
        )
    try:
        known = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return
    for info in known:
        _refuse_private(address, str(info[4][0]))


def _refuse_failure(address: Address, response: "httpx2.Response") -> None:
    status = response.status_code
    if status == 200:
        return
    meaning = _STATUS.get(status, "the server fails" if status >= 500 else "")
    asked = response.headers.get("Retry-After", "")
    wait = f"it asks to wait {asked} seconds" if asked.isdecimal() and len(asked) < 9 else ""
    why = "; ".join(filter(None, (meaning, wait)))
    raise ToolError(f"{address.host} answers with HTTP {status}{f': {why}' if why else ''}")


def _read(
    address: Address, response: "httpx2.Response", access: Access, end: float, fragment: str
) -> Loaded:
    body = bytearray()
    for piece in _decoded(response, access.most + 1):
        body += piece
        _left(end)
        if len(body) > access.most:
            break
    headers = {name.lower(): value for name, value in response.headers.items()}
    cut = len(body) > access.most
    content = bytes(body[: access.most])
    return Loaded(address.url, response.status_code, headers, content, cut, fragment)


def _decoded(response: "httpx2.Response", most: int) -> Iterator[bytes]:
    """The body without its compression, in pieces of at most `most` bytes."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    if coding == "identity":
        yield from response.iter_raw()
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ToolError(f"{response.headers.get('Host', 'the server')} compresses with {coding!r}")
    inflater: Any = None
    for piece in response.iter_raw():
        inflater = inflater or _inflater(coding, piece)
        yield inflater.decompress(piece, most)
        while inflater.unconsumed_tail:
            yield inflater.decompress(inflater.unconsumed_tail, most)
    if inflater is not None and not inflater.eof:
        raise ValueError("the answer ended too early")


def _inflater(coding: str, beginning: bytes) -> Any:
    """gzip or zlib, or deflate without a header, which some servers send."""
    if coding != "deflate":
        return zlib.decompressobj(31)
    with_header = beginning[:1] and beginning[0] & 0x0F == 8 and beginning[0] >> 4 <= 7
    return zlib.decompressobj(15 if with_header else -15)


def _left(end: float) -> float:
    """Seconds that are left. Raises OSError when the time is over."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(error: BaseException) -> str:
    """The cause of a fault in words, from the chain of exceptions behind it."""
    import httpx2

    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "the TLS connection fails"
        if isinstance(cause, socket.gaierror):
            return "there is no such name, or no network"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(cause, (TimeoutError, httpx2.TimeoutException)):
            return "it is too slow"
        if isinstance(cause, httpx2.ProxyError):
            return "the proxy fails"
        if isinstance(cause, zlib.error):
            return "its compressed answer is damaged"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TransportError):
        return "the connection broke, or the answer is malformed"
    return excerpt(str(error)) or type(error).__name__
