"""Server-sent events as they come over the wire (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterable, Iterator

from msgspec import Struct


class Event(Struct, frozen=True):
    """An event. name: "message" where the server gives none; data: its lines, joined."""

    name: str
    data: str


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream, wherever it was cut. Comments and keep-alives are left out; an event that the end cuts off counts."""
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
        # The standard drops it; servers that close at once after their last line exist.
        yield Event(name or "message", "\n".join(data))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Lines that end with LF, CR or CRLF. `str.splitlines` would also cut at characters that JSON writes as they are, such as U+2028."""
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
