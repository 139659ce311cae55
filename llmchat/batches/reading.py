"""Reads the lines of a batch: JSON lines, the rows of a CSV file, or plain text."""

import csv
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO, TextIO

from msgspec import Struct

from llmchat.batches.asking import Ask, ask_of
from llmchat.batches.template import Template
from llmchat.errors import LlmchatError, UsageError
from llmchat.output.formatting import counted
from llmchat.parse_guard import reason
from llmchat.roles import Role
from llmchat.settings import World

# Bytes of a line: a longer one is not a prompt, and reading it would fill the memory.
LONGEST = 64_000_000
_KEY_LENGTH = 16
# Lines of a pipe that wait for their turn.
_READ_AHEAD = 1000


class Line(Struct, frozen=True):
    """A line of the input.

    number: from 1, in the file. id: its custom_id. key: the same in each run over the same line:
    its id, or a hash of its text, with a count behind it for a later twin. ask: None with an error.
    """

    number: int
    id: str | None
    key: str
    ask: Ask | None
    error: str = ""
    hint: str = ""


class Reader:
    """Turns the values of lines into Lines, and tells lines apart."""

    def __init__(self, template: Template | None, role: Role | None = None):
        self._template = template
        self._role = role
        self._seen: dict[str, int] = {}

    def line(self, number: int, text: bytes, value: Any) -> Line:
        """A line with this text. value: what it says, or the error that it is none."""
        own = value.get("custom_id") if isinstance(value, dict) else None
        id_ = str(own) if isinstance(own, str | int) else None
        key = id_ or hashlib.sha256(text).hexdigest()[:_KEY_LENGTH]
        before = self._seen.setdefault(key, number)
        try:
            if isinstance(value, LlmchatError):
                raise value
            if id_ and before != number:
                raise UsageError(f"line {before} has the same custom_id, `{id_[:60]}`")
            return Line(number, id_, self._unique(key, before == number), self._ask(value))
        except LlmchatError as error:
            unique = self._unique(key, before == number)
            return Line(number, id_, unique, None, error.message, error.hint)

    def _ask(self, value: Any) -> Ask:
        return ask_of(value, self._template, self._role)

    def _unique(self, key: str, is_first: bool) -> str:
        """The key, with a count behind it where an earlier line has the same."""
        if is_first:
            return key
        count = self._seen.get(f"{key}#", 1) + 1
        self._seen[f"{key}#"] = count
        return f"{key}#{count}"


def lines_of(
    world: World, name: str, template: Template | None = None, role: Role | None = None
) -> Iterator[Line]:
    """The lines of a file, or of stdin for `-`, one at a time; empty ones are left out.

    `.csv` and `.tsv` have a row of names first; each line of `.txt` is a prompt; all others are
    JSON lines. Raises UsageError for a file that cannot be read.
    """
    reader = Reader(template, role)
    with _opened(world, name) as stream:
        yield from _READERS.get(Path(name).suffix.lower(), _json_lines)(stream, reader, name)


def is_pipe(name: str) -> bool:
    """Whether the lines can only be read once, as they come."""
    return name == "-" or not Path(name).expanduser().is_file()


def count_lines(name: str) -> int | None:
    """The lines of a file that are not empty; None for a pipe, and for CSV, whose rows may have
    several lines."""
    if is_pipe(name) or Path(name).suffix.lower() in (".csv", ".tsv"):
        return None
    with Path(name).expanduser().open("rb") as stream:
        return sum(1 for line in stream if line.strip())


def as_they_come(lines: Iterator[Line]) -> Iterator[Line | None]:
    """The lines of a pipe, read in a thread; None where the next one is not there yet."""
    found: Queue[Line | Exception | None] = Queue(_READ_AHEAD)

    def read() -> None:
        try:
            for line in lines:
                found.put(line)
            found.put(None)
        except Exception as error:
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            one = found.get_nowait()
        except Empty:
            yield None
            continue
        if isinstance(one, Exception):
            raise one
        if one is None:
            return
        yield one


@contextmanager
def _opened(world: World, name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield getattr(world.stdin, "buffer", None) or _Encoded(world.stdin)  # type: ignore[misc]
        return
    try:
        stream = Path(name).expanduser().open("rb")
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


class _Encoded:
    """The lines of a text stream as bytes."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        return self._stream.readline(limit).encode()


def _json_lines(stream: BinaryIO, reader: Reader, name: str) -> Iterator[Line]:
    for number, text in _numbered(stream):
        yield reader.line(number, text, _or_error(lambda text=text: _parsed(text)))  # type: ignore[misc]


def _text_lines(stream: BinaryIO, reader: Reader, name: str) -> Iterator[Line]:
    for number, text in _numbered(stream):
        value = _or_error(lambda text=text: {"prompt": text.decode(), "text": text.decode()})  # type: ignore[misc]
        yield reader.line(number, text, value)


def _rows(stream: BinaryIO, reader: Reader, name: str) -> Iterator[Line]:
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    texts = (text.decode("utf-8-sig" if first else "utf-8") for first, text in _pieces(stream))
    rows = csv.reader(texts, delimiter=delimiter, strict=True)
    try:
        names = [column.strip() for column in next(rows, [])]
        if not any(names):
            raise UsageError(f"{name} is empty", "its first row has the names of the columns")
        for row in rows:
            if any(row):
                text = json.dumps(row).encode()
                yield reader.line(rows.line_num, text, _row(names, row))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{name}, line {rows.line_num}: {reason(error)}") from error


def _row(names: list[str], row: list[str]) -> Any:
    if len(row) != len(names):
        has = counted(len(row), "column")
        return UsageError(f"it has {has}, but the first row has {len(names)}")
    return dict(zip(names, row, strict=True))


def _pieces(stream: BinaryIO) -> Iterator[tuple[bool, bytes]]:
    first = True
    while text := stream.readline(LONGEST):
        yield first, text
        first = False


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, without white space around them. Of one that is too long, its
    beginning, which is no JSON."""
    number = 0
    while text := stream.readline(LONGEST):
        number += 1
        rest = text
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST)):
            pass
        if text.strip():
            yield number, text.strip()


def _parsed(text: bytes) -> Any:
    if len(text) >= LONGEST - 1:
        raise UsageError(f"it is longer than {LONGEST:,} bytes")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"it is not JSON: {error.msg} (column {error.colno})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"it is not JSON: {reason(error)}") from error


def _or_error(make: Any) -> Any:
    try:
        return make()
    except UnicodeDecodeError as error:
        return UsageError(f"it is not UTF-8: {reason(error)}")
    except UsageError as error:
        return error


_READERS: dict[str, Any] = {".csv": _rows, ".tsv": _rows, ".txt": _text_lines}
