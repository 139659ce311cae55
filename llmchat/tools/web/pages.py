"""The text of what was loaded, by its content type. Runs in the process of `worker`."""

import re

from msgspec import Struct

from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError
from llmchat.tools.running import clean as harmless
from llmchat.tools.web import html
from llmchat.tools.web.charset import decode
from llmchat.tools.web.connection import Loaded

_HTML = ("text/html", "application/xhtml+xml")
_XML = ("application/xml", "text/xml")
_PLAIN = ("application/json", "application/yaml", "application/toml", "application/javascript")
_BEGINS_HTML = re.compile(
    r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_LONGEST_TITLE = 200
# Invisible copies of ASCII: a reader does not see what a model reads.
_TAGS = dict.fromkeys(range(0xE0000, 0xE0080))


class Page(Struct, frozen=True):
    """A page as text. place: where the fragment of the address begins. cut: the end is missing."""

    url: str
    title: str
    text: str
    place: int = 0
    cut: bool = False


def read(loaded: Loaded) -> Page:
    """The title and the text of a page. Raises ToolError for what has no text."""
    extracted = _extract(loaded)
    text = clean(extracted.text).strip()
    if not text:
        raise ToolError(f"{excerpt(loaded.url)} has no text")
    place = min(extracted.place, len(text) - 1)
    return Page(loaded.url, one_line(extracted.title), text, place, loaded.cut)


def clean(text: str) -> str:
    """Text of others without characters that a reader does not see or a terminal obeys."""
    return harmless(text.translate(_TAGS))


def one_line(text: str, most: int = _LONGEST_TITLE) -> str:
    """A title as one line of at most `most` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _extract(loaded: Loaded) -> html.Extracted:
    kind = loaded.kind
    if kind in _XML or kind.endswith(("/rss+xml", "/atom+xml", "/rdf+xml")):
        if feed := html.read_feed(loaded.body):
            return feed
        return html.Extracted("", _decoded(loaded))
    if not kind or kind == "application/octet-stream":
        return _sniff(loaded)
    if kind in _HTML:
        return _from_html(_decoded(loaded, html=True), loaded)
    if kind.startswith("text/") or kind in _PLAIN or kind.endswith(("+json", "+xml", "+yaml")):
        return html.Extracted("", _decoded(loaded))
    raise ToolError(f"{excerpt(loaded.url)} is of the type {excerpt(kind)}, which has no text")


def _decoded(loaded: Loaded, *, html: bool = False) -> str:
    """The text of a body. Cleaned first: a parser would leave the rest of an escape sequence."""
    return clean(decode(loaded.body, loaded.headers.get("content-type", ""), html=html))


def _sniff(loaded: Loaded) -> html.Extracted:
    """A body of an unknown type: HTML, text, or binary data, which is refused."""
    if b"\0" in loaded.body[:4096]:
        raise ToolError(f"{excerpt(loaded.url)} is binary data")
    text = _decoded(loaded, html=True)
    if _BEGINS_HTML.match(text[:4096]):
        return _from_html(text, loaded)
    return html.Extracted("", text)


def _from_html(page: str, loaded: Loaded) -> html.Extracted:
    extracted = html.extract(page, loaded.url, loaded.fragment)
    if not extracted.text.strip() and html.needs_javascript(page):
        raise ToolError(f"{excerpt(loaded.url)} shows its text only in a browser (JavaScript)")
    return extracted
