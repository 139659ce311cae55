"""Bytes to rows: JSON lines one by one, a JSON list as a whole, plain text by documents.

Rows are not interpreted here. The first bytes of a file decide its form, never its name. A line
longer than LINE_LIMIT is refused before it is read; a JSON list is read whole, up to LIST_LIMIT.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.settings import World

LINE_LIMIT = 64 << 20
LIST_LIMIT = 2 << 30
_BLOCK = 1 << 24

T = TypeVar("T")


class Row(Struct, frozen=True):
    """One record: undecoded JSON text, or an object that a library has decoded."""

    place: str
    value: bytes | msgspec.Raw | dict[str, Any]

    def to(self, type: type[T]) -> T:
        """The row as `type`. Raises UsageError with its place if it is not JSON of that type."""
        try:
            if isinstance(self.value, dict):
                return msgspec.convert(self.value, type)
            return msgspec.json.decode(self.value, type=type)
        except msgspec.ValidationError as error:
            raise UsageError(f"{self.place}: {str(error)[:1].lower()}{str(error)[1:]}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{self.place}: not JSON: {error}") from error

    @property
    def is_list(self) -> bool:
        return (
            not isinstance(self.value, dict)
            and bytes(memoryview(self.value)[:64]).lstrip()[:1] == b"["
        )

    @property
    def fields(self) -> frozenset[str] | None:
        """The names of an object's fields; None if the row is not an object."""
        value = self.value if isinstance(self.value, dict) else self.to(object)
        return frozenset(value) if isinstance(value, dict) else None


def open_source(name: str, world: World) -> BinaryIO:
    """A file, or stdin for `-`; gzip is unpacked. Raises UsageError if it cannot be read."""
    if name == "-":
        return cast(
            BinaryIO,
            getattr(world.stdin, "buffer", None) or io.BytesIO(world.stdin.read().encode()),
        )
    try:
        file = Path(name).expanduser().open("rb")
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    magic = file.peek(4)[:4]
    if magic == b"PAR1":
        raise UsageError(
            f"{name} is a Parquet file", "`hub:org/name` reads data sets of the Hub, Parquet too"
        )
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if magic[:2] == b"\x1f\x8b" else file


def rows(stream: BinaryIO, name: str) -> Iterator[Row]:
    """Every row of JSON lines, of a JSON list, or of one JSON object.

    Raises UsageError for anything else, and for an empty file.
    """
    number, first = _first_line(stream, name)
    if first[:1] == b"[":
        _begins_well(first, name, number)
        yield from _list(_read(first, stream, LIST_LIMIT, name), name, number)
    elif first[:1] == b"{":
        if len(first) > LINE_LIMIT:
            raise _too_long(name, number)
        if _is_json(first):
            yield Row(f"{name}:{number}", first)
            yield from _lines(stream, name, number)
        else:
            text = _read(first, stream, LINE_LIMIT, name)
            _validated(text, name, number - 1)
            yield Row(f"{name}:1", bytes(text))
    else:
        raise UsageError(
            f"{name}:{number}: not JSON: it begins with {_shown(first)}",
            "`--format text` reads plain text",
        )


def documents(stream: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """Documents of a plain text, separated by two empty lines or a form feed.

    The place of a document is the line on which it begins.
    """
    lines: list[str] = []
    begin, size, empty = 1, 0, 0
    for number, line in _numbered(stream, name, 0):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}:{number}: not text in UTF-8") from error
        empty = 0 if text.strip() else empty + 1
        if (empty >= 2 or text.startswith("\f")) and lines:
            yield f"{name}:{begin}", "".join(lines).strip("\n")
            lines, size = [], 0
        if not lines:
            begin = number
        if text.strip() or lines:
            lines.append(text.lstrip("\f"))
        size += len(line)
        if size > LINE_LIMIT:
            raise UsageError(
                f"{name}:{begin}: the document is longer than {LINE_LIMIT >> 20} MB",
                "separate documents by two empty lines",
            )
    if lines:
        yield f"{name}:{begin}", "".join(lines).strip("\n")


def _first_line(stream: BinaryIO, name: str) -> tuple[int, bytes]:
    for number, line in _numbered(stream, name, 0, bounded=False):
        text = line.removeprefix(b"\xef\xbb\xbf").lstrip() if number == 1 else line.lstrip()
        if text:
            return number, text
    raise UsageError(f"{name} is empty")


def _lines(stream: BinaryIO, name: str, number: int) -> Iterator[Row]:
    for line_number, line in _numbered(stream, name, number):
        if line.strip():
            yield Row(f"{name}:{line_number}", line)


def _numbered(
    stream: BinaryIO, name: str, number: int, *, bounded: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Lines and their numbers, starting after `number`. bounded: refuse a line over the limit."""
    while True:
        try:
            line = stream.readline(LINE_LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{name}:{number + 1}: cannot be read: {error}") from error
        if not line:
            return
        number += 1
        if bounded and len(line) > LINE_LIMIT:
            raise _too_long(name, number)
        yield number, line


def _too_long(name: str, number: int) -> UsageError:
    return UsageError(
        f"{name}:{number}: the line is longer than {LINE_LIMIT >> 20} MB",
        "a record is one line of JSON",
    )


def _list(data: bytearray, name: str, number: int) -> Iterator[Row]:
    """The elements of a JSON list; or each line, if every line is a list (a conversation)."""
    end = data.find(b"\n")
    if 0 <= end <= LINE_LIMIT and _is_json(data[:end]) and data[end:].strip():
        yield Row(f"{name}:{number}", bytes(data[:end]))
        yield from _lines(io.BytesIO(data[end + 1 :]), name, number)
        return
    elements = _validated(data, name, number - 1)
    if not elements:
        raise UsageError(f"{name} holds no record")
    single = Row(f"{name}:1", elements[0])
    if {"role", "content"} <= (single.fields or frozenset()):
        yield Row(f"{name}:1", bytes(data))
        return
    for index, element in enumerate(elements, 1):
        if memoryview(element).nbytes > LINE_LIMIT:
            raise UsageError(f"{name}:{index}: the record is longer than {LINE_LIMIT >> 20} MB")
        yield Row(f"{name}:{index}", element)


def _validated(data: bytes | bytearray, name: str, before: int) -> list[msgspec.Raw]:
    """The elements of `data`, one JSON value; nothing for an object.

    An error names the line, after `before` lines that were read already.
    """
    try:
        return (
            msgspec.json.decode(data, type=list[msgspec.Raw])
            if data[:1] == b"["
            else msgspec.json.decode(data, type=msgspec.Raw) and []
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        offset = str(error).rpartition("(byte ")[2].rstrip(")")
        line = data.count(b"\n", 0, int(offset) if offset.isdigit() else len(data)) + 1 + before
        raise UsageError(f"{name}:{line}: not JSON: {str(error).partition(' (byte')[0]}") from error


def _begins_well(first: bytes, name: str, number: int) -> None:
    """Raise early if the first line of a list, or its first 64 MB, is invalid."""
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        if "truncated" not in str(error) and "trailing" not in str(error):
            raise UsageError(
                f"{name}:{number}: not JSON: {str(error).partition(' (byte')[0]}"
            ) from error


def _read(first: bytes, stream: BinaryIO, limit: int, name: str) -> bytearray:
    """The rest of the stream after its first line, in blocks: nothing large is held twice."""
    data = bytearray(first)
    try:
        while block := stream.read(_BLOCK):
            data += block
            if len(data) > limit:
                hint = "JSON lines may be as long as the disk: one record a line"
                raise UsageError(f"{name}: one JSON value of more than {limit >> 20} MB", hint)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    return data


def _is_json(text: bytes | bytearray) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _shown(text: bytes) -> str:
    start = text[:40].decode("utf-8", "replace")
    return f"{start!r}"
