"""Text from streams, files and arguments: checked to be UTF-8, and limited in size."""

import os
from pathlib import Path
from typing import BinaryIO, TextIO

from llmchat.errors import UsageError

# Most bytes of one text: `yes |`, /dev/zero and a disk image must not fill the memory.
MOST = 1_000_000_000
# Most bytes of a text for a model; far more than any context window holds.
MOST_ASKED = 32_000_000


def read_all(stream: TextIO, most: int = MOST) -> str:
    """All of a text stream.

    Raises UsageError if it is too large, or not UTF-8, with the position of the first wrong byte.
    """
    raw = getattr(stream, "buffer", None)
    if raw is None:
        return stream.read()
    return decoded(_bounded(raw, "stdin", most), "stdin")


def read_file(path: Path, name: str, most: int = MOST) -> str:
    """The text of a file or a pipe. A file that is too large is not read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise _too_large(name, f" ({size / 1e6:,.0f} MB)", most)
        return decoded(_bounded(file, name, most), name)


def _bounded(stream: BinaryIO, name: str, most: int) -> bytes:
    data = stream.read(most + 1)
    if len(data) > most:
        raise _too_large(name, "", most)
    return data


def _too_large(name: str, size: str, most: int) -> UsageError:
    return UsageError(
        f"{name} is too large{size}; the limit is {most / 1e6:,.0f} MB",
        "pass a part of it, for example with `head -c 100000`",
    )


def decoded(data: bytes, name: str) -> str:
    """UTF-8 bytes, with or without a byte order mark, as text with `\\n` line ends."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}",
            "convert it first, for example with `iconv -f latin1 -t utf-8`",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def checked_arguments(argv: list[str]) -> list[str]:
    """The arguments unchanged. Raises UsageError for one that is not UTF-8."""
    for argument in argv:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise UsageError(f"the argument `{shown}` is not UTF-8 text") from error
    return argv
