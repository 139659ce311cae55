"""Read the header of a safetensors file: names and shapes of its tensors, without their bytes.

Format: 8 bytes, the header's length n as a little-endian integer; n bytes of JSON, name → {dtype,
shape, data_offsets}; the tensors.

Our own code rather than HfApi.parse_safetensors_file_metadata: that function accepts answers of any
length (a server may ignore the range), sets no limit on time, and checks neither offsets nor the
size of the file. It reads no local files either.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError

# The limit of the safetensors library.
_LONGEST = 100_000_000
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


def read_shapes(read: Callable[[int, int], bytes], size: int, name: str) -> Shapes:
    """Name → shape. Raises IntegrityError for an invalid header.

    `read(start, count)` returns bytes of the file, which has `size` bytes.
    """
    length = int.from_bytes(read(0, 8), "little")
    if not 2 <= length <= min(_LONGEST, size - 8):
        raise IntegrityError(
            f"{name} is not a safetensors file: its header would be {length:,} bytes long"
        )
    content = read(8, length)
    try:
        table = json.loads(content)
        shapes = {
            tensor: tuple(map(int, fact["shape"]))
            for tensor, fact in table.items()
            if tensor != "__metadata__"
        }
        ends = [_end(fact) for tensor, fact in table.items() if tensor != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{name} is not a safetensors file: its header is invalid") from error
    if 8 + length + max(ends, default=0) != size or any(
        number < 0 for shape in shapes.values() for number in shape
    ):
        raise IntegrityError(f"{name} is incomplete: its header does not describe {size:,} bytes")
    return shapes


def shapes_of_file(path: Path) -> Shapes:
    with path.open("rb") as file:

        def read(start: int, count: int) -> bytes:
            file.seek(start)
            return file.read(count)

        return read_shapes(read, path.stat().st_size, path.name)


def shapes_of_folder(folder: Path) -> Shapes:
    """The tensors of all safetensors files of a checkpoint."""
    shapes: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= shapes_of_file(path)
    return shapes


def _end(fact: dict[str, Any]) -> int:
    begin, end = map(int, fact["data_offsets"])
    bits = _BITS.get(str(fact["dtype"]))
    if bits and (end - begin) * 8 != prod(fact["shape"]) * bits:
        raise ValueError("the shape of a tensor does not match its offsets")
    return end
