"""Writes safetensors files tensor by tensor, and maps them so that the file's pages are the
tensors.

The safetensors library writes a file from tensors that are all in memory. Here the header is made
from the shapes alone, and one tensor at a time is in memory. Tensors whose sizes are multiples of
64 come first after a padded header, so that they begin at multiples of 64 bytes: the format allows
no gaps.
"""

import copy
import json
import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from llmchat.parse_guard import reading
from llmchat.quantisation import Fact

ALIGNMENT = 64
_NAMES = {
    torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.uint8: "U8", torch.bool: "BOOL",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
}  # fmt: skip
# Without it Linux rejects a private mapping larger than memory and swap, although no page is
# written.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
# What the format's own reader accepts.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """A tensor that is going to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape) * int(self.dtype.itemsize)


def shards(units: Iterable[Sequence[Entry]], limit: int) -> list[list[Entry]]:
    """Entries in files of at most `limit` bytes. A unit stays together, even if it is larger."""
    files: list[list[Entry]] = []
    room = 0
    for unit in units:
        size = sum(entry.size for entry in unit)
        if not files or size > room:
            files.append([])
            room = limit
        files[-1] += unit
        room -= size
    return files


def header(entries: Sequence[Entry]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file, and where in the file each tensor begins."""
    arranged = sorted(
        entries,
        key=lambda entry: (
            entry.size % ALIGNMENT > 0,
            entry.size % ALIGNMENT and -entry.dtype.itemsize,
        ),
    )
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in arranged:
        table[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [end, end + entry.size],
        }
        end += entry.size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {
        entry.name: start + table[entry.name]["data_offsets"][0] for entry in arranged
    }


def file_size(entries: Sequence[Entry]) -> int:
    return len(header(entries)[0]) + sum(entry.size for entry in entries)


class Writer:
    """A file of known tensors; `put` writes them in any order. The disk's room is taken at once."""

    def __init__(self, path: Path, entries: Sequence[Entry]):
        first, self._starts = header(entries)
        self._entries = {entry.name: entry for entry in entries}
        self._file = path.open("wb")
        _take_room(self._file, len(first) + sum(entry.size for entry in entries))
        self._file.write(first)

    def put(self, name: str, tensor: Tensor) -> None:
        entry = self._entries.pop(name)
        if (tensor.dtype, tuple(tensor.shape)) != (entry.dtype, entry.shape):
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)},"
                f" announced as {entry.dtype} {entry.shape}"
            )
        self._file.seek(self._starts[name])
        self._file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def close(self) -> None:
        """Raises ValueError when a tensor was not put."""
        if self._entries:
            raise ValueError(f"{next(iter(self._entries))} was not written")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class _Place(NamedTuple):
    """A tensor in a file; its bytes are counted from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def _places(table: Any, size: int) -> dict[str, _Place]:
    """The place of each tensor.

    Raises ValueError unless they fill `size` bytes without gap or overlap, as the format requires.
    """
    if not isinstance(table, dict):
        raise ValueError("its header is not a table")
    facts = table.get("__metadata__")
    if not isinstance(facts, dict | None) or not all(
        isinstance(fact, str) for fact in (facts or {}).values()
    ):
        raise ValueError("its metadata are not texts")
    places = {name: _place(name, at) for name, at in table.items() if name != "__metadata__"}
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][2:]):
        if place.begin != end:
            raise ValueError(f"`{name}` does not begin where the tensor before it ends")
        end = place.end
    if end != size:
        raise ValueError(
            f"it is cut off: {size:,} bytes of {end:,}"
            if end > size
            else f"{size - end:,} bytes belong to no tensor"
        )
    return places


def _place(name: str, at: Any) -> _Place:
    shape, offsets = at["shape"], at["data_offsets"]
    numbers = [*shape, *offsets]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(offsets) != 2:
        raise ValueError(f"`{name}` has an impossible shape or place")
    if at["dtype"] not in _TYPES:
        raise ValueError(f"`{name}` is of the unknown type {at['dtype']}")
    place = _Place(_TYPES[at["dtype"]], tuple(shape), *offsets)
    if place.end - place.begin != prod(place.shape) * int(place.dtype.itemsize):
        raise ValueError(f"`{name}` is not as large as its shape")
    return place


def _take_room(file: BinaryIO, size: int) -> None:
    """Of the disk at once, where the system can; elsewhere as it is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        flags, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, flags, access)


class MappedFile:
    """The tensors of a file, without a copy: pages are read on first use, and the OS can evict
    them.

    The mapping is private: writing into a tensor never changes the file.
    """

    def __init__(self, path: Path):
        self.path = path
        with reading(
            path, hint="`llmchat verify` checks the files, `llmchat pull` fetches them again"
        ):
            self._map = map_file(path)
            length = int.from_bytes(self._map[:8], "little")
            if length > min(_LONGEST_HEADER, len(self._map) - 8):
                raise ValueError("its header is longer than the file")
            table = json.loads(self._map[8 : 8 + length])
            self._start = 8 + length
            self._places = _places(table, len(self._map) - self._start)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: place.shape for name, place in self._places.items()
        }

    def mapped_again(self) -> "MappedFile":
        """The same file in a mapping of its own, whose pages are freed with its tensors.

        Its header is not read again: that takes milliseconds in a file of thousands of experts.
        """
        again = copy.copy(self)
        again._map = map_file(self.path)
        return again

    def fact(self, name: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """Type and shape of a tensor."""
        return self._places[name].dtype, self._places[name].shape

    def stored(self, name: str) -> Fact:
        """Type, in the words of the format, and shape of a tensor."""
        place = self._places[name]
        return Fact(_NAMES[place.dtype], place.shape)

    def get(self, name: str) -> Tensor:
        return self.joined([name])

    def joined(self, names: Sequence[str]) -> Tensor:
        """Tensors of the same type and width, stacked along the rows.

        They are mapped if they are adjacent in the file, else copied.
        """
        places = [self._places[name] for name in names]
        if len(places) > 1 and any(left.end != right.begin for left, right in pairwise(places)):
            return torch.cat([self.get(name) for name in names])
        first = places[0]
        shape = (
            (sum(place.shape[0] for place in places), *first.shape[1:])
            if len(places) > 1
            else first.shape
        )
        begin, end = self._start + first.begin, self._start + places[-1].end
        if begin == end:
            return torch.empty(shape, dtype=first.dtype)
        if begin % first.dtype.itemsize:
            return torch.frombuffer(bytearray(self._map[begin:end]), dtype=first.dtype).view(shape)
        return torch.frombuffer(
            self._map, dtype=first.dtype, count=(end - begin) // first.dtype.itemsize, offset=begin
        ).view(shape)
