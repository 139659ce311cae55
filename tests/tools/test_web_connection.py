"""Loading a page: bounded, each hop checked, and connected to exactly the checked address."""

import gzip
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loopback_web import Handler, Reply, Site, html, serving

from llmchat.tools import ToolError
from llmchat.tools.web import addresses
from llmchat.tools.web.connection import Access, Loaded, load, proxies_of

LOCAL = Access(allow_private=True, seconds=5)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


def refusal(url: str, access: Access = LOCAL) -> str:
    with pytest.raises(ToolError) as refused:
        load(url, access)
    assert "\n" not in refused.value.message
    return f"{refused.value.message} ({refused.value.hint})"


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the name server give these answers in turn; returns the names that are asked for."""
    left, asked, real = list(answers), list[str](), socket.getaddrinfo

    def answer(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        if addresses.literal(host):
            return list(real(host, port, *rest, **more))
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_page_is_loaded(site: Site) -> None:
    site.pages["/"] = html("<p>hello</p>")
    loaded = load(f"{site.url}/#part", LOCAL)
    assert (loaded.status, loaded.kind, loaded.fragment) == (200, "text/html", "part")
    assert b"hello" in loaded.body and not loaded.cut


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_opened(site: Site, host: str) -> None:
    line = refusal(f"http://{host}:{site.port}/", Access())
    assert "is not an address of the public internet" in line and "--allow-private" in line
    assert site.asked == []


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://10.1.2.3/"],
)
def test_metadata_services_are_not_opened(url: str) -> None:
    assert "not an address of the public internet" in refusal(url, Access())


def test_a_redirect_to_a_private_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Site(), host="127.0.0.2") as site, serving(Site()) as inner:
        inner.pages["/secret"] = html("<p>secret</p>")
        site.pages["/"] = Reply(status=302, headers={"Location": f"{inner.url}/secret"})
        # The first site is public: its name leads to an address that counts as one.
        resolving(monkeypatch, ["127.0.0.2"])
        real = addresses.is_public
        monkeypatch.setattr(addresses, "is_public", lambda ip: str(ip) == "127.0.0.2" or real(ip))
        line = refusal(f"http://public.example:{site.port}/", Access(seconds=5))
        assert "127.0.0.1 is not an address of the public internet" in line
        assert site.asked == ["/"] and inner.asked == []


def test_a_name_that_leads_to_a_private_address_is_not_opened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:127.0.0.1"]):
        resolving(monkeypatch, answer)
        line = refusal(f"http://rebind.example:{site.port}/", Access())
        assert f"rebind.example ({answer[-1]}) is not an address" in line
    assert site.asked == []


def test_a_name_is_resolved_once_and_the_checked_address_is_dialled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/"] = html("<p>hello</p>")
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.9"])
    assert b"hello" in load(f"http://rebind.example:{site.port}/", LOCAL).body
    assert asked == ["rebind.example"]
    assert site.hosts == [f"rebind.example:{site.port}"]


def test_the_next_address_is_tried_if_one_refuses(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/"] = html("<p>hello</p>")
    resolving(monkeypatch, ["127.0.0.9", "127.0.0.1"])
    assert b"hello" in load(f"http://two.example:{site.port}/", LOCAL).body


def test_redirects_are_followed_and_counted(site: Site) -> None:
    site.pages["/a"] = Reply(status=301, headers={"Location": "/b#part"})
    site.pages["/b"] = html("<p>b</p>")
    site.pages["/loop"] = Reply(status=302, headers={"Location": "/loop"})
    loaded = load(f"{site.url}/a", LOCAL)
    assert (loaded.url, loaded.fragment) == (f"{site.url}/b", "part")
    assert "redirects more than 8 times" in refusal(f"{site.url}/loop")


@pytest.mark.parametrize(
    "target", ["", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "http://0x7f.1/"]
)
def test_a_redirect_to_something_else_is_refused(site: Site, target: str) -> None:
    site.pages["/"] = Reply(status=302, headers={"Location": target})
    assert refusal(f"{site.url}/")
    assert len(site.asked) <= 9


@pytest.mark.parametrize(
    ("status", "line"),
    [(404, "HTTP 404: there is no such page"), (500, "HTTP 500: the server fails"),
     (403, "HTTP 403: it refuses access"), (204, "HTTP 204"), (418, "HTTP 418")],
)  # fmt: skip
def test_a_failure_of_the_server_is_one_line(site: Site, status: int, line: str) -> None:
    site.pages["/"] = Reply(b"x" if status != 204 else b"", status=status)
    assert line in refusal(f"{site.url}/")


def test_a_server_that_asks_to_wait_is_reported_with_the_time(site: Site) -> None:
    site.pages["/"] = Reply(status=429, headers={"Retry-After": "120"})
    line = refusal(f"{site.url}/")
    assert "HTTP 429: too many requests; it asks to wait 120 seconds" in line


def test_a_huge_body_is_cut(site: Site) -> None:
    site.pages["/"] = Reply(b"a" * 100_000)
    loaded = load(f"{site.url}/", Access(True, most=10_000))
    assert len(loaded.body) == 10_000 and loaded.cut


def test_an_endless_body_is_cut(site: Site) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        while not site.released.is_set():
            handler.wfile.write(b"more and more\n" * 1000)

    site.pages["/"] = endless
    loaded = load(f"{site.url}/", Access(True, most=200_000))
    assert len(loaded.body) == 200_000 and loaded.cut


def test_a_body_that_comes_in_drops_ends_with_the_time(site: Site) -> None:
    def drops(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not site.released.wait(0.02):
            handler.wfile.write(b"a")

    site.pages["/"] = drops
    assert "it is too slow" in refusal(f"{site.url}/", Access(True, seconds=0.3))


def test_a_server_that_never_answers_is_too_slow(site: Site) -> None:
    site.pages["/"] = lambda handler: site.released.wait(10) and None
    assert "it is too slow" in refusal(f"{site.url}/", Access(True, seconds=0.3))


def bomb(size: int) -> bytes:
    return gzip.compress(gzip.compress(b"\0" * size))


def test_a_gzip_bomb_is_cut_before_it_is_unpacked(site: Site) -> None:
    import tracemalloc

    packed = gzip.compress(b"a" * 100_000_000)
    site.pages["/"] = Reply(packed, "text/plain", headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        loaded = load(f"{site.url}/", Access(True, most=500_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded.cut and len(loaded.body) == 500_000 and peak < 10_000_000


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_unpacked(
    site: Site, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    text = b"some text, some text\n" * 1000
    site.pages["/"] = Reply(pack(text), "text/plain", headers={"Content-Encoding": coding})
    assert load(f"{site.url}/", LOCAL).body == text


@pytest.mark.parametrize(
    ("coding", "body", "line"),
    [
        ("br", b"x", "compresses with"),
        ("gzip, gzip", bomb(1000), "compresses with"),
        ("gzip", b"not gzip", "its compressed answer is damaged"),
        ("gzip", gzip.compress(b"text" * 1000)[:-20], "ended too early"),
    ],
    ids=["unknown", "twice", "damaged", "cut"],
)
def test_a_damaged_compression_is_one_line(site: Site, coding: str, body: bytes, line: str) -> None:
    site.pages["/"] = Reply(body, headers={"Content-Encoding": coding})
    assert line in refusal(f"{site.url}/")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"nonsense\r\n\r\n", b"",
     b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000],
    ids=["short", "nonsense", "nothing", "long header"],
)  # fmt: skip
def test_a_malformed_answer_is_one_line(site: Site, answer: bytes) -> None:
    def raw(handler: Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    site.pages["/"] = raw
    assert "the connection broke, or the answer is malformed" in refusal(f"{site.url}/")


def test_a_refused_connection_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "127.0.0.1 cannot be read: the connection is refused" in refusal(
        f"http://127.0.0.1:{port}/"
    )


def test_a_name_that_does_not_exist_is_one_line() -> None:
    assert "there is no such name, or no network" in refusal("http://nothing.invalid/")


def test_an_untrusted_certificate_is_one_line(certificate: tuple[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(Site(), context) as site:
        line = refusal(f"https://127.0.0.1:{site.port}/")
    assert "its certificate is not trusted" in line and site.asked == []


def test_the_name_is_in_tls_and_its_certificate_is_checked(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda ssl_socket, name, context: names.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    resolving(monkeypatch, ["127.0.0.1"])
    with serving(Site({"/": html("<p>hello</p>")}), context) as site:
        assert b"hello" in load(f"https://site.example:{site.port}/", LOCAL).body
        line = refusal(f"https://other.example:{site.port}/")
    assert names == ["site.example", "other.example"]
    assert "its certificate is not trusted (Hostname mismatch" in line


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for site.example that signed itself, and its key."""
    import datetime

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.example")])
    day = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day - datetime.timedelta(1))
        .not_valid_after(day + datetime.timedelta(2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.example")]), False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(folder / "cert"), str(folder / "key")


class TestProxy:
    """Where the environment names a proxy, it resolves the names."""

    def test_a_page_is_requested_from_the_proxy(self, site: Site) -> None:
        site.pages["/page"] = html("<p>by proxy</p>")
        access = Access(seconds=5, proxies={"http": site.url})
        assert b"by proxy" in load("http://nothing.invalid/page", access).body
        assert site.asked == ["http://nothing.invalid/page"]

    @pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://router/", "http://x.internal/"])
    def test_private_addresses_are_not_requested(self, site: Site, url: str) -> None:
        refusal(url, Access(seconds=5, proxies={"all": site.url}))
        assert site.asked == []

    def test_a_name_that_is_private_here_is_not_requested(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving(monkeypatch, ["10.0.0.1"])
        refusal("http://inner.example/", Access(seconds=5, proxies={"http": site.url}))
        assert site.asked == []

    def test_hosts_of_no_proxy_are_dialled(self, site: Site) -> None:
        site.pages["/"] = html("<p>direct</p>")
        proxies = {"http": "http://127.0.0.1:1", "no": "localhost,127.0.0.1"}
        assert b"direct" in load(f"{site.url}/", Access(True, proxies=proxies)).body

    @pytest.mark.parametrize(
        "proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://127.0.0.1:1"]
    )
    def test_a_proxy_that_cannot_be_used_is_one_line(self, proxy: str) -> None:
        refusal("http://nothing.invalid/", Access(seconds=5, proxies={"all": proxy}))

    def test_proxies_are_found_in_the_environment(self) -> None:
        env = {"http_proxy": "a", "HTTP_PROXY": "b", "HTTPS_PROXY": "c", "no_proxy": "d", "X": "e"}
        assert proxies_of(env) == {"http": "a", "https": "c", "no": "d"}
        assert proxies_of({"HTTP_PROXY": "b"}) == {}


def test_the_type_is_without_parameters() -> None:
    assert Loaded("", 200, {"content-type": "Text/HTML; charset=x"}, b"").kind == "text/html"
