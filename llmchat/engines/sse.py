"""Parses server-sent events from a stream of bytes (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterable, Iterator

from msgspec import Struct


class Event(Struct, frozen=True):
    """An event. name: "message" if the server gives none; data: its lines, joined."""

    name: str
    data: str


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream, wherever it was cut. Comments and keep-alives are left out.

    An event that the end of the stream cuts off counts as complete.
    """
    name, data = "", list[str]()
    for line in _lines(pieces):
        if not line:
            if data:
                yield Event(name or "message", "\n".join(data))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    if data:
        # The standard drops it, but some servers close right after their last line.
        yield Event(name or "message", "\n".join(data))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Lines that end with LF, CR or CRLF.

    `str.splitlines` would also cut at characters that JSON leaves as they are, such as U+2028.
    """
    held = b""
    for piece in pieces:
        held += piece
        # A CR at the end may be the first half of a CRLF.
        whole, held = (held[:-1], b"\r") if held.endswith(b"\r") else (held, b"")
        *lines, rest = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        held = rest + held
        yield from (line.decode("utf-8", "replace") for line in lines)
    if held:
        yield held.removesuffix(b"\r").decode("utf-8", "replace")
