"""The text of a page, by its content type and its character set."""

import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fuzz_mutations

from llmchat.tools import ToolError
from llmchat.tools.web.charset import decode
from llmchat.tools.web.connection import Loaded
from llmchat.tools.web.pages import Page, read

WORDS = "This paragraph is long enough to be the main text of the page, whoever reads it."


def page(body: str | bytes, kind: str = "text/html", fragment: str = "") -> Page:
    content = body.encode() if isinstance(body, str) else body
    return read(
        Loaded("http://a.example/", 200, {"content-type": kind}, content, fragment=fragment)
    )


def refusal(body: str | bytes, kind: str = "text/html") -> str:
    with pytest.raises(ToolError) as refused:
        page(body, kind)
    assert "\n" not in refused.value.message
    return refused.value.message


ARTICLE = f"""<!doctype html><html><head><title> The  &amp; title
 of it</title><script>var hidden = 1</script><style>p {{color: red}}</style></head><body>
<nav><a href="/">Home</a><a href="/about">About</a></nav>
<article><h1>Heading</h1><p>{WORDS}</p>
<h2 id="usage">Usage</h2><p>Run <code>make</code>, see <a href="/docs">the docs</a>. {WORDS}</p>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<ul><li>one item</li><li>another item</li></ul></article>
<footer>Copyright</footer></body></html>"""


def test_html_becomes_markdown_without_scripts() -> None:
    found = page(ARTICLE)
    assert found.title == "The & title of it"
    assert "# Heading" in found.text and WORDS in found.text and "- one item" in found.text
    assert "| 1 | 2 |" in found.text
    assert "hidden" not in found.text and "color" not in found.text


def test_a_fragment_is_found_in_the_text() -> None:
    found = page(ARTICLE, fragment="usage")
    assert found.text[found.place :].startswith("## Usage")
    assert page(ARTICLE, fragment="missing").place == 0


def test_a_fragment_of_an_empty_anchor_is_what_follows() -> None:
    body = f"<p>{WORDS}</p><a name='x y'></a><p>Second. {WORDS}</p><p>Third. {WORDS}</p>"
    found = page(f"<html><body><article>{body}</article></body></html>", fragment="x%20y")
    assert found.text[found.place :].startswith("Second.")


def test_a_page_without_a_main_part_gives_all_its_text() -> None:
    assert "short" in page("<html><body><div>short</div></body></html>").text


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("", "has no text"),
        ("<html><body></body></html>", "has no text"),
        ("<html><body><div id=root></div><script src=a.js></script></body></html>", "JavaScript"),
        ("<html><body><script>document.write('x')</script></body></html>", "JavaScript"),
        ("<html><head><title>t</title></head><body><img src=x></body></html>", "has no text"),
    ],
)
def test_a_page_without_text_is_one_line(body: str, line: str) -> None:
    assert line in refusal(body)


@pytest.mark.parametrize(
    ("package", "kind"), [("trafilatura", "text/html"), ("lxml", "application/rss+xml")]
)
def test_without_the_extra_one_line_says_what_to_install(
    package: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert refusal(ARTICLE, kind) == "reading web pages requires the package trafilatura"


@pytest.mark.parametrize(
    "kind", ["application/pdf", "image/png", "video/mp4", "application/zip", "font/woff2"]
)
def test_other_types_are_refused_by_name(kind: str) -> None:
    assert f"of the type {kind}, which has no text" in refusal(b"%PDF-1.7", kind)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("text/plain", "a <b> c\n"), ("text/markdown", "# a\n\n*b*"), ("application/json", '{"a": 1}'),
     ("text/csv", "a,b\n1,2"), ("application/ld+json", "{}"), ("application/xml", "<a>b</a>"),
     ("", "just text")],
)  # fmt: skip
def test_text_is_kept_as_it_is(kind: str, body: str) -> None:
    assert page(body, kind).text == body.strip()


def test_an_unknown_type_is_looked_at() -> None:
    assert page(ARTICLE, "").title == "The & title of it"
    assert "binary data" in refusal(b"\x7fELF\0\0\1", "application/octet-stream")


RSS = f"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<rss version="2.0"><channel><title>News</title><link>http://a.example</link>
<item><title>First &amp; best</title><link>http://a.example/1</link>
<pubDate>Mon, 1 Jan 2026</pubDate><description>&lt;p&gt;{WORDS}&lt;/p&gt;</description></item>
<item><title>Second &x;</title><link>http://a.example/2</link></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Blog</title><entry><title>Post</title>
<link href="http://b.example/p"/><updated>2026-01-01</updated><summary>s</summary></entry></feed>"""


def test_feeds_become_lists_of_links() -> None:
    rss = page(RSS, "application/rss+xml")
    assert rss.title == "News" and "root:" not in rss.text
    first, second = rss.text.splitlines()
    assert first == f"- [First & best](http://a.example/1) (Mon, 1 Jan 2026): {WORDS}"
    assert second.startswith("- [Second") and second.endswith("](http://a.example/2)")
    atom = page(ATOM, "application/xml")
    assert (atom.title, atom.text) == ("Blog", "- [Post](http://b.example/p) (2026-01-01): s")


def test_a_bomb_of_entities_is_not_unfolded() -> None:
    entities = '<!ENTITY a0 "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    bomb = f"<!DOCTYPE rss [{entities}]><rss><channel><title>&a9;</title></channel></rss>"
    assert len(refusal(bomb, "application/rss+xml")) < 200


def test_titles_and_text_cannot_control_a_terminal() -> None:
    body = f"<title>a\x1b[31mb\x1b]0;owned\x07c\u202ed</title><p>{WORDS}\x9b2J\x08\U000e0041</p>"
    found = page(f"<html><body>{body}</body></html>")
    assert found.title == "abcd" and len(page(f"<title>{'t' * 999}</title><p>x").title) == 200
    assert found.text.replace("\n", "").isprintable() and "\U000e0041" not in found.text


@pytest.mark.parametrize("kind", ["text/html", "application/xml"])
@pytest.mark.parametrize("seed", range(20))
def test_a_mutated_page_is_read_or_refused(kind: str, seed: int) -> None:
    random = Random(seed)
    body = ARTICLE if kind == "text/html" else RSS
    for mutate in (fuzz_mutations.of_bytes, fuzz_mutations.of_bytes, fuzz_mutations.of_text):
        mutated = mutate(random, body.encode())
        try:
            assert page(mutated, kind, "usage").text.strip()
        except ToolError as error:
            assert "\n" not in error.message


UMLAUTS = "Grüße aus Köln, für ältere Bücher – und „Zitate“."


@pytest.mark.parametrize(
    ("charset", "content_type"),
    [
        ("utf-8", "text/html"),
        ("utf-8", "text/html; charset=iso-8859-1"),
        ("cp1252", "text/html; charset=utf-8"),
        ("cp1252", "text/html; charset=ISO-8859-1"),
        ("cp1252", "text/html; charset=nonsense"),
        ("cp1252", "text/html; charset=hex"),
        ("cp1252", "text/html; charset=idna"),
        ("utf-16", "text/html"),
        ("utf-8-sig", "text/html; charset=latin-1"),
        ("utf-32", "text/html; charset=utf-8"),
    ],
)
def test_the_character_set_is_found_whatever_is_declared(charset: str, content_type: str) -> None:
    text = f"<html><body><p>{UMLAUTS} {WORDS}</p></body></html>"
    assert UMLAUTS in decode(text.encode(charset), content_type, html=True)


@pytest.mark.parametrize(
    "charset", ["shift_jis", "euc-jp", "iso-2022-jp", "gb18030", "windows-1251"]
)
def test_declared_character_sets_are_used(charset: str) -> None:
    text = "Привет" if charset == "windows-1251" else "日本語"
    assert text in decode(text.encode(charset), f"text/html; charset={charset}")
    meta = f'<html><meta charset="{charset}"><p>'.encode() + text.encode(charset)
    assert text in decode(meta, "text/html", html=True)


@settings(deadline=None)
@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_bytes_are_decoded(body: bytes, content_type: str) -> None:
    decode(body, content_type, html=True)
    decode(body, f"text/html; charset={content_type}")
