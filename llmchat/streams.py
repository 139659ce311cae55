"""stdin, stdout and stderr as a shell hands them over: closed, or not in UTF-8."""

import os
import sys
from typing import Literal, TextIO

from llmchat.errors import UsageError


def open_closed() -> None:
    """Replace stdin and stderr that the shell closed (`<&-`, `2>&-`). Raises UsageError for a closed stdout."""
    if sys.stderr is None:
        sys.stderr = _nowhere("w")
    if sys.stdin is None:
        sys.stdin = _nowhere("r")
    if sys.stdout is None:
        sys.stdout = _nowhere("w")
        raise UsageError("stdout is closed, so nothing can be printed", "leave out `>&-`; `>/dev/null` throws output away")


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")


def read_all(stream: TextIO) -> str:
    """All of a text stream. Raises UsageError where it is not UTF-8, with the place of the first wrong byte."""
    raw = getattr(stream, "buffer", None)
    if raw is None:
        return stream.read()
    return decoded(raw.read(), "stdin")


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
    """argv, where every argument is UTF-8. Raises UsageError where one is not."""
    for argument in argv:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise UsageError(f"the argument `{shown}` is not UTF-8 text") from error
    return argv
