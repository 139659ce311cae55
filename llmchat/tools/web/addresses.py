"""Decide which addresses of the web may be opened: pure, without any look-up.

A page, a search result or a model may name an address inside the user's network, such as a router
or a cloud's metadata service. Only addresses of the public internet pass, in their usual spelling.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin

from msgspec import Struct

from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError

IpAddress = IPv4Address | IPv6Address

_LONGEST = 8000
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?")
# The last label of a number that resolvers read as IPv4: 2130706433, 0x7f.1, 127.1.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_PORTS = {"http": 80, "https": 443}

# IANA's registry of special IPv4 addresses and multicast; the last one is Azure's wire server.
_SPECIAL_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",
    )
)  # fmt: skip
# Public IPv6 addresses are in 2000::/3; these parts of it are not, or carry an IPv4 address.
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# Networks without IPv4 reach the public IPv4 addresses through this prefix (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")
# The interface identifiers of ISATAP, before an IPv4 address (RFC 5214).
_ISATAP = (0x00005EFE, 0x02005EFE)


class Address(Struct, frozen=True):
    """A checked http or https address.

    url: as it is requested, without its fragment. host: in ASCII, as it is resolved. netloc: for
    the Host header.
    """

    url: str
    scheme: str
    host: str
    port: int
    netloc: str
    fragment: str = ""


def parse(text: str) -> Address:
    """Check an address. Raises ToolError for what cannot or must not be opened."""
    import httpx2

    try:
        url = httpx2.URL(_with_scheme(text.strip()))
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise ToolError(f"invalid address `{excerpt(text)}`") from error
    host = url.raw_host.decode("ascii")
    if url.scheme not in _PORTS:
        raise ToolError(f"`{excerpt(text)}` is not an http or https address")
    if url.userinfo:
        raise ToolError(f"the address of {excerpt(host)} contains a user name or password")
    port = _PORTS[url.scheme] if url.port is None else url.port
    if len(text) > _LONGEST or "\\" in text or not 0 < port < 65536:
        raise ToolError(f"invalid address `{excerpt(text)}`")
    _check_host(host, text)
    netloc = url.netloc.decode("ascii")
    requested = str(url.copy_with(fragment=None))
    return Address(requested, url.scheme, host, port, netloc, url.fragment)


def follow(address: Address, target: str) -> Address:
    """The address that a redirect leads to. Raises ToolError as `parse` does."""
    try:
        return parse(urljoin(address.url, target))
    except ValueError as error:
        raise ToolError(f"{address.host} redirects to an invalid address") from error


def literal(host: str) -> IpAddress | None:
    """The IP address that a host is; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_public(address: IpAddress) -> bool:
    """Whether an address belongs to the public internet, and not to a network of the user's."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address.scope_id:
        return False
    number = int(address)
    if address in _NAT64:
        return is_public(IPv4Address(number & 0xFFFFFFFF))
    if address not in _GLOBAL_6 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return not any(address in network for network in _SPECIAL_6)


def is_local_name(host: str) -> bool:
    """Whether a name can only mean this machine or this network.

    Asked where a proxy resolves names, so that their addresses are unknown.
    """
    name = host.rstrip(".")
    return "." not in name or name.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _with_scheme(text: str) -> str:
    """Models often leave `https://` out."""
    bare = re.match(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?(?:[/?#]|$)", text, re.I)
    return f"https://{text}" if bare else text


def _check_host(host: str, text: str) -> None:
    """Refuse a host that different programs could read as different addresses."""
    if literal(host) is not None and "%" not in host:
        return
    if not host or len(host) > 253 or not _NAME.fullmatch(host) or ".." in host:
        raise ToolError(f"invalid host in the address `{excerpt(text)}`")
    if _NUMERIC.fullmatch(host):
        raise ToolError(f"`{excerpt(host)}` is an unusual spelling of an IP address")
