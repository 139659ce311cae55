"""Decode the bytes of a page, whose declared character set is often missing or wrong."""

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{1,40})", re.I)
_PARAMETER = re.compile(r"charset\s*=\s*[\"']?([a-zA-Z0-9_:.-]{1,40})", re.I)
# Codecs of Python that no page is written in, some of them slow or surprising.
_NEVER = ("unicode_escape", "raw_unicode_escape", "utf-7", "idna", "punycode", "undefined")
# The encoding standard of browsers: what is called latin-1 is windows-1252.
_AS_BROWSERS = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}


def decode(body: bytes, content_type: str = "", *, html: bool = False) -> str:
    """The text of a body: by its mark, as UTF-8 if it is valid UTF-8, else as it is declared.

    Never fails: bytes that mean nothing become replacement characters.
    """
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body.decode(name, "replace")
    declared = _declared(body, content_type, html=html)
    # Text of other character sets is hardly ever valid UTF-8, except for those of 7 bits.
    names = ["utf-8", declared] if declared and not body.isascii() else [declared or "utf-8"]
    for name in filter(None, names):
        try:
            return body.decode(name)
        except UnicodeError:
            continue
    return body.decode(declared if declared not in ("", "utf-8") else _guess(body), "replace")


def _declared(body: bytes, content_type: str, *, html: bool) -> str:
    """The name of the declared character set, as Python's codecs know it; empty without one."""
    found = _PARAMETER.search(content_type)
    name = found[1] if found else ""
    if not name and html and (meta := _META.search(body[:4096])):
        name = meta[1].decode("ascii")
    try:
        known = codecs.lookup(name).name if name else ""
        "".encode(known or "ascii")
    except (LookupError, UnicodeError, ValueError):
        return ""
    return "" if known in _NEVER else _AS_BROWSERS.get(known, known)


def _guess(body: bytes) -> str:
    """The most likely character set of a body that declares none or a wrong one."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return "cp1252"
    best = from_bytes(body[:50_000]).best()
    return best.encoding if best else "cp1252"
