"""The text of a file: a range of its lines, bounded in length and in number."""

from collections.abc import Iterator
from threading import Event
from typing import BinaryIO

from msgspec import Struct

from llmchat.output.terminal_text import excerpt
from llmchat.tools.files.root import Unreadable

# Most characters of one answer, and of one line in it.
MOST_TEXT = 16_000
MOST_LINE = 1_000
# A file is read up to here; the lines after it are not counted.
MOST_BYTES = 100_000_000
_SAMPLE = 8192
_CHUNK = 1 << 16


class Lines(Struct, frozen=True):
    """Lines `first` to `last` of a file. total: None if the file was not read to its end."""

    texts: list[str]
    first: int
    total: int | None

    @property
    def last(self) -> int:
        return self.first + len(self.texts) - 1


def refuse_binary(file: BinaryIO, name: str) -> None:
    if b"\0" in file.read(_SAMPLE):
        raise Unreadable(f"`{excerpt(name)}` is a binary file")
    file.seek(0)


def read_lines(file: BinaryIO, first: int, count: int, stop: Event) -> Lines:
    """At most `count` lines from line `first` on, counted from 1, and MOST_TEXT characters."""
    texts: list[str] = []
    number, room = 0, MOST_TEXT
    for number, line in enumerate(lines_of(file, stop), 1):
        if number < first or len(texts) >= count:
            continue
        if len(line) > room:
            # The answer is full; the rest is only counted.
            count = 0
            continue
        texts.append(line)
        room -= len(line) + 1
    return Lines(texts, first, None if _is_over(file, stop) else number)


def lines_of(file: BinaryIO, stop: Event) -> Iterator[str]:
    """The lines of a file, each cut to MOST_LINE characters, with U+FFFD for what is not UTF-8.

    Ends early after MOST_BYTES, and when `stop` is set.
    """
    while not _is_over(file, stop) and (raw := file.readline(_CHUNK)):
        left = 0
        end = raw
        while not (end.endswith(b"\n") or _is_over(file, stop)):
            end = file.readline(_CHUNK)
            left += len(end)
            if not end:
                break
        line = raw.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n")
        left += max(len(line) - MOST_LINE, 0)
        yield f"{line[:MOST_LINE]} [… {left:,} more in this line]" if left else line


def _is_over(file: BinaryIO, stop: Event) -> bool:
    return stop.is_set() or file.tell() > MOST_BYTES
