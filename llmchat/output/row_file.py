"""Files of JSON objects, one a line, each written at once: a stopped run can continue."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from llmchat.errors import UsageError


def complete_rows(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and text of each line that has an end."""
    file.seek(0)
    start = 0
    for number, text in enumerate(file, 1):
        if not text.endswith(b"\n"):
            return
        yield number, start, text
        start += len(text)


def remove_broken_row(file: BinaryIO, name: str, openings: Sequence[bytes]) -> None:
    """Remove a last line without an end, which a stopped run has left.

    openings: how rows begin. Raises UsageError for a line that begins otherwise: it is not ours.
    """
    end = sum(len(text) for _, _, text in complete_rows(file))
    file.seek(end)
    rest = file.read()
    if not rest:
        return
    if not any(rest.startswith(opening[: len(rest)]) for opening in openings):
        raise UsageError(
            f"the last line of {name} is not the beginning of a row",
            "choose another file name",
        )
    file.truncate(end)
