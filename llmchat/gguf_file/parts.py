"""GGUF models in several files: `NAME-00001-of-00003.gguf`, as llama.cpp splits them."""

import re
from collections.abc import Iterable
from pathlib import Path

from llmchat.errors import IntegrityError
from llmchat.gguf_file.header import GgufHeader, read_header

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def parts_of(path: Path) -> tuple[Path, ...]:
    """Every file of a model, in order; the file itself for a model in one file.

    Raises IntegrityError where one is missing.
    """
    match = PART.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    files = tuple(
        path.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf")
        for number in range(1, min(count, 10_000) + 1)
    )
    lost = next((file for file in files if not file.is_file()), None)
    if lost or count != len(files):
        raise IntegrityError(
            f"{path.name} is one of {count} files, and {(lost or path).name} is missing",
            "download all of them into one folder",
        )
    return files


def joined(headers: Iterable[GgufHeader]) -> GgufHeader:
    """The headers of all parts as one: the facts of the first, the tensors of all.

    The offsets of tensors stay those in their own files.
    """
    first, *others = headers
    tensors = dict(first.tensors)
    for other in others:
        tensors |= other.tensors
    return GgufHeader(first.facts, tensors, first.data_start)


def read_model(path: Path) -> GgufHeader:
    """The header of a model, of all its parts where it has several."""
    return joined(read_header(part) for part in parts_of(path))
