"""The readable text of an HTML page or a feed as Markdown. Runs in the process of `worker`."""

import re
from typing import Any

from msgspec import Struct

from llmchat.tools import ToolError

# Marks the place of a fragment while a page is converted; private characters would be dropped.
_MARK = "⸢⸣⸢"
_ITEMS = 100
_SCRIPTED = re.compile(
    r"enable javascript|requires? javascript|javascript is (?:off|disabled)", re.I
)


class Extracted(Struct, frozen=True):
    """Title and text; place: where the fragment of the address begins in the text."""

    title: str
    text: str
    place: int = 0


def extract(page: str, url: str, fragment: str = "") -> Extracted:
    """The main text of an HTML page as Markdown; without a main part, all of its text."""
    try:
        import trafilatura
    except ImportError as error:
        raise _missing() from error
    tree = trafilatura.load_html(page.replace(_MARK, ""))
    if tree is None:
        return Extracted("", "")
    if fragment:
        _mark_fragment(tree, fragment)
    options: Any = {
        "url": url,
        "output_format": "markdown",
        "include_tables": True,
        "include_comments": False,
        "favor_recall": True,
    }
    text = trafilatura.extract(tree, **options) or trafilatura.html2txt(tree) or ""
    place = max(0, text.find(_MARK))
    start = text.rfind("\n", 0, place) + 1 if place else 0
    return Extracted(_title(tree), text.replace(_MARK, "").strip(), start)


def _missing() -> ToolError:
    return ToolError(
        "reading web pages requires the package trafilatura", "pip install 'llmchat[tools]'"
    )


def needs_javascript(page: str) -> bool:
    """Whether a page without text shows it only to a browser that runs its programs."""
    return "<script" in page.lower() or bool(_SCRIPTED.search(page))


def _title(tree: Any) -> str:
    titles = tree.xpath("//title | //h1")
    return next((text for one in titles if (text := one.text_content().strip())), "")


def _mark_fragment(tree: Any, fragment: str) -> None:
    """Put the mark in front of the first text of the element that a fragment names."""
    from urllib.parse import unquote

    names = {fragment, unquote(fragment)}
    found = [one for one in tree.iter() if {one.get("id"), one.get("name")} & names]
    for element in found[:1]:
        for inner in element.iter():
            if isinstance(inner.tag, str) and (inner.text or "").strip():
                inner.text = _MARK + inner.text
                return
        if (following := element.getnext()) is not None:
            following.text = _MARK + (following.text or "")
        else:
            element.tail = _MARK + (element.tail or "")


def read_feed(content: bytes) -> Extracted | None:
    """The entries of an RSS or Atom feed as a list of links; None for other XML."""
    try:
        from lxml import etree  # type: ignore[import-untyped]
    except ImportError as error:
        raise _missing() from error
    parser = etree.XMLParser(
        recover=True, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError:
        return None
    if root is None or _name(root) not in ("rss", "feed", "RDF"):
        return None
    entries = [one for one in root.iter() if _name(one) in ("item", "entry")]
    title = _child(root, "title") or next(
        (_child(one, "title") for one in root if _name(one) == "channel"), ""
    )
    return Extracted(title, "\n".join(map(_entry, entries[:_ITEMS])))


def _entry(entry: Any) -> str:
    """`- [title](link) (date): summary`"""
    link = _child(entry, "link") or next(
        (one.get("href", "") for one in entry if _name(one) == "link"), ""
    )
    date = _child(entry, "pubDate") or _child(entry, "updated") or _child(entry, "date")
    summary = _child(entry, "description") or _child(entry, "summary")
    plain = " ".join(re.sub(r"<[^>]{0,2000}>", " ", summary).split())[:300]
    line = f"- [{_child(entry, 'title') or link}]({link})"
    return f"{line}{f' ({date})' if date else ''}{f': {plain}' if plain else ''}"


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: Any, name: str) -> str:
    """The text of a child element; empty where there is none."""
    texts = ("".join(one.itertext()).strip() for one in element if _name(one) == name)
    return next(filter(None, texts), "")
