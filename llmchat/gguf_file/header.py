"""The header of a GGUF file: its facts, and where its tensors lie.

Every length in the file is checked before it is used, so that a damaged or hostile file is one
clear line, and takes no more memory than its own size would explain. Format: ggml/docs/gguf.md.
"""

import mmap
import os
import struct
import time
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.errors import IntegrityError
from llmchat.gguf_file.types import GGML_TYPES, GgmlType, file_kind, meant_types
from llmchat.parse_guard import reading, shown

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
# The largest vocabularies take some 20 MB.
_LONGEST_HEADER, _MOST_ELEMENTS = 256_000_000, 1 << 23
_MOST_TENSORS, _MOST_FACTS, _MOST_DIMENSIONS, _DEEPEST = 1 << 17, 1 << 16, 4, 4
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_SETTLED_NS = 2_000_000_000
HINT = "download the file again, or another one; LLMCHAT_TRACEBACK=1 shows where"


class NeedsMore(Exception):
    """The bytes end within the header. count: how many from the start are needed at least."""

    def __init__(self, count: int):
        super().__init__(f"the header is longer: at least {count} bytes")
        self.count = count


class TensorInfo(Struct, frozen=True):
    """A tensor in the file. shape: rows first; offset: from the start of the file; size: bytes."""

    type: GgmlType
    shape: tuple[int, ...]
    offset: int
    size: int


class GgufHeader(Struct, frozen=True):
    """facts: the key-value pairs as Python values; data_start: where the tensors begin."""

    facts: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data_start: int

    @property
    def kind(self) -> str:
        """The quantisation of the file: `Q4_K_M`."""
        meant = {
            kind
            for info in self.tensors.values()
            for kind in meant_types(info.type.name, info.shape[-1] if info.shape else 1)
        }
        return file_kind(self.facts, self.kinds(), meant)

    @property
    def parameters(self) -> int:
        return sum(prod(info.shape) for info in self.tensors.values())

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * sum(info.size for info in self.tensors.values()) / max(1, self.parameters)

    def kinds(self) -> dict[str, int]:
        """Bytes of each tensor type."""
        found: dict[str, int] = {}
        for info in self.tensors.values():
            found[info.type.name] = found.get(info.type.name, 0) + info.size
        return found


def read_header(source: Path | bytes, size: int | None = None, name: str = "") -> GgufHeader:
    """Read the header of a file, or from its first bytes. size: of the whole file, where known.

    Raises IntegrityError for a file that is not a valid GGUF, and NeedsMore for bytes that end
    within the header.
    """
    if isinstance(source, bytes):
        return _of_bytes(source, size, name or "the GGUF header")
    with reading(source, IntegrityError, HINT):
        found = source.stat()
        # A file that was written just now may change once more within the same tick of the clock.
        is_settled = time.time_ns() - found.st_mtime_ns > _SETTLED_NS
        read = _of_file if is_settled else _of_file.__wrapped__
        header = read(source, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    # A copy, since a reader may complete the facts of its architecture.
    return GgufHeader(dict(header.facts), dict(header.tensors), header.data_start)


# A pull reads the header of its file five times. Only one is kept: a vocabulary takes some 20 MB.
@lru_cache(maxsize=1)
def _of_file(source: Path, _identity: tuple[int, ...]) -> GgufHeader:
    with source.open("rb") as file:
        if not (size := os.fstat(file.fileno()).st_size):
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, size, whole=True).header()


def _of_bytes(source: bytes, size: int | None, name: str) -> GgufHeader:
    with reading(name, IntegrityError, HINT):
        try:
            return _Reader(source, size, whole=False).header()
        except NeedsMore as error:
            count = error.count
    raise NeedsMore(count)


class _Reader:
    """Reads from the front. whole: the data is the whole file, so more will not come."""

    def __init__(self, data: bytes | mmap.mmap, size: int | None, whole: bool):
        self._data, self._size, self._whole = data, size, whole
        self._limit = min(_LONGEST_HEADER, size if size is not None else _LONGEST_HEADER)
        self._at = self._elements = 0

    def header(self) -> GgufHeader:
        if (magic := self._take(4)) != _MAGIC:
            raise ValueError(f"it is not a GGUF file (it begins with {shown(repr(magic))})")
        self._check_version(self._number("I"))
        tensors = self._count(_MOST_TENSORS)
        found: dict[str, Any] = {}
        for _ in range(self._count(_MOST_FACTS)):
            key, value = self._string(), self._value(self._number("I"), 0)
            if key in found:
                raise ValueError(f"the key `{shown(key)}` is there twice")
            found[key] = value
        return self._with_tensors(found, tensors)

    def _check_version(self, version: int) -> None:
        if version in _VERSIONS:
            return
        if version and not version & 0xFFFF:
            raise ValueError("it is for machines with the other byte order (big endian)")
        raise ValueError(f"it has version {version} of the GGUF format; 2 and 3 are known")

    def _count(self, most: int) -> int:
        if (count := int(self._number("Q"))) > most:
            raise ValueError(f"it claims {count} entries, and at most {most} are possible")
        return count

    def _with_tensors(self, facts: dict[str, Any], count: int) -> GgufHeader:
        alignment = facts.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment.bit_count() > 1:
            raise ValueError(f"its alignment is {shown(str(alignment))}, not a power of two")
        entries: list[tuple[str, GgmlType, tuple[int, ...], int]] = []
        entries += (self._entry() for _ in range(count))
        start = -(-self._at // alignment) * alignment
        tensors = {entry[0]: self._placed(entry, start, alignment) for entry in entries}
        if len(tensors) < count:
            raise ValueError("two of its tensors have the same name")
        return GgufHeader(facts, tensors, start)

    def _entry(self) -> tuple[str, GgmlType, tuple[int, ...], int]:
        name, dimensions = self._string(), self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"tensor `{shown(name)}` has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        number, offset = self._number("I"), self._number("Q")
        if number not in GGML_TYPES:
            raise ValueError(f"tensor `{shown(name)}` has the type {number}, which is unknown")
        return name, GGML_TYPES[number], shape, offset

    def _placed(
        self, entry: tuple[str, GgmlType, tuple[int, ...], int], start: int, alignment: int
    ) -> TensorInfo:
        name, kind, shape, offset = entry
        if (shape[-1] if shape else 1) % kind.block:
            raise ValueError(
                f"rows of tensor `{shown(name)}` have {shape[-1]} values, not a multiple of the"
                f" {kind.block} of a block of {kind.name}"
            )
        size = prod(shape) // kind.block * kind.bytes
        if size >= 1 << 62 or offset % alignment:
            raise ValueError(f"tensor `{shown(name)}` has no valid size or offset")
        if self._size is not None and start + offset + size > self._size:
            raise ValueError(
                f"tensor `{shown(name)}` ends {start + offset + size - self._size:,} bytes after"
                " the end of the file"
            )
        return TensorInfo(kind, shape, start + offset, size)

    def _value(self, kind: int, depth: int) -> Any:
        if form := _NUMBERS.get(kind):
            return self._number(form)
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth)
        raise ValueError(f"a value has the type {kind}, which is unknown")

    def _array(self, depth: int) -> list[Any]:
        kind, count = self._number("I"), self._number("Q")
        self._elements += min(count, _MOST_ELEMENTS + 1)
        if depth == _DEEPEST or self._elements > _MOST_ELEMENTS:
            raise ValueError(f"an array is too long or nested too deeply ({count} values)")
        if form := _NUMBERS.get(kind):
            packed = f"<{count}{form}"
            return list(struct.unpack(packed, self._take(struct.calcsize(packed))))
        if kind == _STRING:
            return self._strings(count)
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]

    def _string(self) -> str:
        return self._take(int.from_bytes(self._take(8), "little")).decode("utf-8", "replace")

    def _strings(self, count: int) -> list[str]:
        """Read strings without a call for each: a vocabulary and its merges have some 300,000."""
        data, at, size = self._data, self._at, len(self._data)
        length_at = struct.Struct("<Q").unpack_from
        found: list[str] = []
        for _ in range(count):
            start = at + 8
            if start > size:
                self._refuse_end(start)
            at = start + length_at(data, at)[0]
            if at > size:
                self._refuse_end(at)
            found.append(data[start:at].decode("utf-8", "replace"))
        self._at = at
        return found

    def _take(self, count: int) -> bytes:
        start, end = self._at, self._at + count
        if end > len(self._data):
            self._refuse_end(end)
        self._at = end
        return self._data[start:end]

    def _refuse_end(self, end: int) -> None:
        if self._whole or end > self._limit:
            raise ValueError("it ends too early, or is damaged")
        raise NeedsMore(end)
