"""Read the header of a safetensors file: names, types and shapes of its tensors, not their bytes.

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
from llmchat.quantisation import Fact, Shapes
from llmchat.quantisation.types import BITS

__all__ = ["Shapes", "facts_of_folder", "read_facts", "shapes_of_file", "shapes_of_folder"]

# The limit of the safetensors library.
_LONGEST = 100_000_000


def read_facts(read: Callable[[int, int], bytes], size: int, name: str) -> dict[str, Fact]:
    """Name → type and shape. Raises IntegrityError for an invalid header.

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
        facts = {
            tensor: Fact(str(fact["dtype"]), tuple(map(int, fact["shape"])))
            for tensor, fact in table.items()
            if tensor != "__metadata__"
        }
        ends = [_end(fact) for tensor, fact in table.items() if tensor != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{name} is not a safetensors file: its header is invalid") from error
    if 8 + length + max(ends, default=0) != size or any(
        number < 0 for fact in facts.values() for number in fact.shape
    ):
        raise IntegrityError(f"{name} is incomplete: its header does not describe {size:,} bytes")
    return facts


def shapes_of_file(path: Path) -> Shapes:
    return {name: fact.shape for name, fact in _facts_of_file(path).items()}


def shapes_of_folder(folder: Path) -> Shapes:
    """The tensors of all safetensors files of a checkpoint."""
    return {name: fact.shape for name, fact in facts_of_folder(folder).items()}


def facts_of_folder(folder: Path) -> dict[str, Fact]:
    """The tensors of all safetensors files of a checkpoint."""
    facts: dict[str, Fact] = {}
    for path in sorted(folder.glob("*.safetensors")):
        facts |= _facts_of_file(path)
    return facts


def _facts_of_file(path: Path) -> dict[str, Fact]:
    with path.open("rb") as file:

        def read(start: int, count: int) -> bytes:
            file.seek(start)
            return file.read(count)

        return read_facts(read, path.stat().st_size, path.name)


def _end(fact: dict[str, Any]) -> int:
    begin, end = map(int, fact["data_offsets"])
    bits = BITS.get(str(fact["dtype"]))
    if bits and (end - begin) * 8 != prod(fact["shape"]) * bits:
        raise ValueError("the shape of a tensor does not match its offsets")
    return end
