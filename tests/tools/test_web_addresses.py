"""Only addresses of the public internet may be opened, however they are spelled."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.tools import ToolError
from llmchat.tools.web.addresses import follow, is_local_name, is_public, parse

SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "255.255.255.255/32", "168.63.129.16/32", "::/128", "::1/128", "::ffff:0:0/96", "::/96",
        "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:10::/28", "2001:db8::/32",
        "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
        "fd00:ec2::254/128",
    )
]  # fmt: skip


def inside(network: IPv4Network | IPv6Network) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    last = int(network.broadcast_address)
    kind = type(network.network_address)
    return st.integers(int(network.network_address), last).map(kind)


@given(st.sampled_from(SPECIAL).flatmap(inside))
def test_no_address_of_a_special_network_is_public(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("network", SPECIAL, ids=str)
def test_the_ends_of_a_special_network_are_not_public(network: IPv4Network | IPv6Network) -> None:
    assert not is_public(network.network_address) and not is_public(network.broadcast_address)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_what_python_calls_private_is_not_public(address: IPv4Address) -> None:
    special = (
        address.is_private or address.is_multicast or address.is_reserved
        or address.is_loopback or address.is_link_local or address.is_unspecified
    )  # fmt: skip
    if special:
        assert not is_public(address)


@given(st.sampled_from(SPECIAL[:17]).flatmap(inside))
def test_no_ipv6_form_of_a_special_ipv4_address_is_public(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        IPv6Address(number),
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address(int(IPv6Address("2606:4700::5efe:0:0")) | number),
        IPv6Address(int(IPv6Address("2001::")) | (number ^ 0xFFFFFFFF)),
    ]
    assert not any(map(is_public, forms))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.32.0.1",
     "2606:4700:4700::1111", "2a00:1450:4001::200e", "64:ff9b::808:808"],
)  # fmt: skip
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_an_address_of_one_interface_is_not_public() -> None:
    assert not is_public(ipaddress.ip_address("2606:4700::1%eth0"))


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://127.1/",
        "http://0177.0.0.1/", "http://017700000001/", "http://0/", "http://1.2.3.04/",
        "http://%31%32%37.0.0.1/", "http://127.0.0.1%00.example.com/", "http://１２７.０.０.１/",
        "http://user:secret@example.com/", "http://example.com:80@127.0.0.1/",
        "http://example.com\\@127.0.0.1/", "file:///etc/passwd",
        "ftp://example.com/", "gopher://example.com/", "data:text/html,x", "javascript:alert(1)",
        "unix:/run/docker.sock", "http://", "http:///etc/passwd", "http:example.com", "",
        "http://exa mple.com/", "http://example.com:0/", "http://example.com:99999/",
        "http://[::1", "http://[fe80::1%25eth0]/", "http://a..b/", "http://-/", "//example.com/",
        "http://exa\nmple.com/", f"http://example.com/{'a' * 8000}", "http://ⓔxample\u200b.com/",
    ],
)  # fmt: skip
def test_an_address_with_a_trick_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ToolError) as refused:
        parse(url)
    assert len(refused.value.message) < 200 and "\n" not in refused.value.message


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ToolError) as refused:
        parse("http://user:hunter2@example.com/")
    assert "hunter2" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("text", "url", "host"),
    [
        ("https://example.com/a?b=c#d", "https://example.com/a?b=c", "example.com"),
        ("example.com/docs", "https://example.com/docs", "example.com"),
        ("example.com:8080", "https://example.com:8080", "example.com"),
        ("HTTP://EXAMPLE.com:8080", "http://example.com:8080", "example.com"),
        ("https://bücher.de/ä", "https://xn--bcher-kva.de/%C3%A4", "xn--bcher-kva.de"),
        ("http://[2606:4700::1]/x", "http://[2606:4700::1]/x", "2606:4700::1"),
        ("http://127。0。0。1/", "http://127.0.0.1/", "127.0.0.1"),
        ("https://example.com.", "https://example.com.", "example.com."),
    ],
)
def test_a_usual_address_is_parsed(text: str, url: str, host: str) -> None:
    address = parse(text)
    assert (address.url, address.host) == (url, host)


def test_a_fragment_is_kept_apart() -> None:
    assert parse("https://example.com/a#part%202").fragment in ("part 2", "part%202")


def test_a_redirect_is_parsed_like_any_address() -> None:
    start = parse("https://example.com/a/b")
    assert follow(start, "../c").url == "https://example.com/c"
    assert follow(start, "//other.org/x").host == "other.org"
    for target in (
        "file:///etc/passwd",
        "http://2130706433/",
        "http://u:p@example.com/",
        "http://[",
    ):
        with pytest.raises(ToolError):
            follow(start, target)


@pytest.mark.parametrize("host", ["localhost", "router", "nas.local", "metadata.google.internal"])
def test_names_of_the_local_network_are_known(host: str) -> None:
    assert is_local_name(host) and not is_local_name("example.com")
