"""The layout in which the compiled step reads grouped weights (csrc/grouped.h).

Rows are in blocks of 16, columns in pieces of 512, and these in chunks of 32. A block is its pieces
one behind the other, each the scales of its columns, padded to 64 bytes, and then their codes:

    scales  of each group in order: where a block of the format begins, its scale, minimum and
            zeros; then the scale and the minimum of the group; each of 16 rows
    codes   of each chunk: vectors of 64 bytes, of which byte 4 * row + j belongs to column
            4 * v + j, v = 0 … 7. 8 bits: vector v. 4 bits: low and high halves of a vector are v
            and v + 1. 2 bits: bits 2i of a vector are v + i. 1 bit: bit v of the only vector.
            3, 5, 6 bits: the low 2 or 4 bits of all, then the high ones.

A table of numbers comes first, in 64 bytes. Rows and columns that do not exist are zeros.
"""

import re
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.errors import IntegrityError

ROWS, CHUNK, PIECE, LINE = 16, 32, 512, 64
# Bits of a code → bits that are stored together: low ones, high ones.
_PARTS = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
_TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_NAME = re.compile(
    r"w([234568])_g(16|32)_b([1-9][0-9]{0,8})_(f16|bf16|f32)(?:_(u8|i8|u4))?"
    r"(?:_(minimum|minima))?(_zeros)?(?:_zero([1-9][0-9]{0,2}))?(_table)?"
)


@dataclass(frozen=True)
class Kind:
    """What a layout depends on, besides the shape. `group` and `block` are numbers of inputs.

    scales: the type of a scale of a group; u4: it shares a byte with the minimum. minimum: of a
    block, or with `minima`, also of a group. zero, table: see GroupedWeight.
    """

    bits: int
    group: int
    block: int
    scale: str
    scales: str = ""
    minimum: str = ""
    zeros: bool = False
    zero: int = 0
    table: bool = False

    @property
    def name(self) -> str:
        parts = [f"w{self.bits}", f"g{self.group}", f"b{self.block}", self.scale]
        parts += [part for part in (self.scales, self.minimum) if part]
        parts += ["zeros"] * self.zeros + [f"zero{self.zero}"] * bool(self.zero)
        return "_".join(parts + ["table"] * self.table)

    @property
    def chunk_bytes(self) -> int:
        return self.bits * LINE

    @property
    def numbers(self) -> int:
        """Bytes of a scale of a block."""
        return int(_TYPES[self.scale].itemsize)

    def bytes_of(self, field: str) -> int:
        """Bytes of a field of the scales for one row; 0 where the kind has none."""
        has_minima = self.minimum == "minima" and self.scales != "u4"
        sizes = {
            "scale": self.numbers,
            "minimum": self.numbers * bool(self.minimum),
            "zeros": int(self.zeros),
            "scales": int(bool(self.scales)),
            "minima": int(has_minima),
        }
        return sizes[field]


def kind_named(name: str) -> Kind:
    """Raises IntegrityError for a name that none has."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise IntegrityError(f"`{name}` is not a layout of grouped weights")
    bits, group, block, scale, scales, minimum, zeros, zero, table = found.groups()
    kind = Kind(
        int(bits), int(group), int(block), scale, scales or "", minimum or "", bool(zeros),
        int(zero or 0), bool(table),
    )  # fmt: skip
    if not _is_valid(kind):
        raise IntegrityError(f"`{name}` is not a layout of grouped weights")
    return kind


def _is_valid(kind: Kind) -> bool:
    packs = kind.scales != "u4" or kind.minimum == "minima"
    looks_up = not kind.table or (kind.bits == 4 and not kind.zeros and not kind.zero)
    return kind.block % kind.group == 0 and packs and looks_up and kind.zero < 256


def kind_of(weight: GroupedWeight) -> str | None:
    """The layout of a weight; None if the compiled step has none for it."""
    group, block = _group_and_block(weight)
    if weight.bits not in _PARTS or not group:
        return None
    kind = Kind(
        weight.bits, group, block, _scale_type(weight), _scales_type(weight),
        _minimum_type(weight), weight.zeros is not None, weight.zero, weight.table is not None,
    )  # fmt: skip
    return kind.name if _is_valid(kind) and _NAME.fullmatch(kind.name) else None


def _group_and_block(weight: GroupedWeight) -> tuple[int, int]:
    """Inputs of a group and of a block of the layout; 0 for none."""
    in_ = weight.shape[1]
    block = weight.block if weight.block < in_ else max(CHUNK, in_ + -in_ % CHUNK)
    fits = [size for size in (CHUNK, ROWS) if block % size == 0]
    has_groups = weight.scales is not None or weight.minima is not None
    if has_groups:
        fits = [size for size in fits if size == weight.group]
    return (fits[0], block) if fits else (0, block)


def _scale_type(weight: GroupedWeight) -> str:
    """The narrowest type that holds the scales and minima of blocks exactly."""
    numbers = [one.float() for one in (weight.scale, weight.minimum) if one is not None]
    for name, dtype in _TYPES.items():
        if all(torch.equal(one.to(dtype).float(), one) for one in numbers):
            return name
    return "f32"


def _scales_type(weight: GroupedWeight) -> str:
    if weight.scales is None:
        return ""
    if weight.scales.dtype != torch.uint8:
        return "i8"
    if weight.bits == 2 and weight.minima is not None:
        most = max(int(weight.scales.max()), int(weight.minima.max()))
        return "u4" if most < 16 else "u8"
    return "u8"


def _minimum_type(weight: GroupedWeight) -> str:
    if weight.minimum is None:
        return ""
    return "minimum" if weight.minima is None else "minima"


def packed_bytes(kind: str, shape: tuple[int, int]) -> int:
    """The length of PackedWeight.data. Raises IntegrityError for an unknown kind."""
    one = kind_named(kind)
    out, in_ = shape
    return LINE * one.table + _ceil(out, ROWS) * _row_bytes(one, in_)


def _row_bytes(kind: Kind, in_: int) -> int:
    return sum(
        _header_bytes(kind, in_, p) + _chunks_in(in_, p) * kind.chunk_bytes
        for p in range(_ceil(in_, PIECE))
    )


def pack(weight: GroupedWeight, name: str = "a weight") -> PackedWeight:
    """Raises IntegrityError for a scale that is not finite, and ValueError without a kind."""
    found = kind_of(weight)
    if found is None:
        raise ValueError(f"{name} has no layout, see kind_of")
    data = torch.empty(packed_bytes(found, weight.shape), dtype=torch.uint8)
    pack_into(data[put_table(weight, data) :], weight, kind_named(found), name)
    return PackedWeight(found, data, weight.shape, weight.order)


def put_table(weight: GroupedWeight, data: Tensor) -> int:
    """Write the table of a weight, if it has one, to where its data begin; returns its bytes."""
    if weight.table is None:
        return 0
    data[:LINE] = pad(weight.table.view(torch.uint8), (0, LINE - ROWS))
    return LINE


def pack_into(data: Tensor, weight: GroupedWeight, kind: Kind, name: str) -> None:
    """Write a weight, but for its table, to all of data, uint8 [bytes]. Raises as `pack` does."""
    for numbers in (weight.scale, weight.minimum):
        if numbers is not None and not torch.isfinite(numbers).all():
            raise IntegrityError(f"{name} has a scale that is infinite or not a number")
    out, in_ = weight.shape
    rows = data.view(_ceil(out, ROWS), -1)
    codes, header = _packed_codes(weight.codes, weight.bits), _header(weight, kind)
    at = taken = chunk = 0
    for piece in range(_ceil(in_, PIECE)):
        size, count = _header_bytes(kind, in_, piece), _chunks_in(in_, piece)
        rows[:, at : at + size] = header[:, taken : taken + size]
        at, taken = at + size, taken + size
        size = count * kind.chunk_bytes
        rows[:, at : at + size].unflatten(1, (count, -1)).copy_(codes[:, chunk : chunk + count])
        at, chunk = at + size, chunk + count


def unpacked(packed: PackedWeight) -> GroupedWeight:
    """The weight again; a block that was longer than a row is as long as a row of chunks."""
    kind, (out, in_) = kind_named(packed.kind), packed.shape
    start = LINE * kind.table
    rows = packed.data[start:].view(_ceil(out, ROWS), -1)
    headers, codes, at = [], [], 0
    for piece in range(_ceil(in_, PIECE)):
        size, count = _header_bytes(kind, in_, piece), _chunks_in(in_, piece)
        headers.append(rows[:, at : at + size])
        at += size
        size = count * kind.chunk_bytes
        codes.append(rows[:, at : at + size].unflatten(1, (count, kind.chunk_bytes)))
        at += size
    fields = _fields(torch.cat(headers, 1), kind, (out, in_))
    table = packed.data[:ROWS].view(torch.int8).clone() if kind.table else None
    return GroupedWeight(
        _unpacked_codes(torch.cat(codes, 1), kind.bits)[:out, :in_].contiguous(), kind.bits,
        kind.group if kind.scales or kind.minimum == "minima" else kind.block, kind.block,
        zero=kind.zero, table=table, order=packed.order, **fields,
    )  # fmt: skip


# ---- scales


def _header(weight: GroupedWeight, kind: Kind) -> Tensor:
    """uint8 [row blocks, bytes]: the scales of all pieces."""
    out, in_ = weight.shape
    found = {
        "scale": weight.scale.to(_TYPES[kind.scale]),
        "minimum": None if weight.minimum is None else weight.minimum.to(_TYPES[kind.scale]),
        "zeros": weight.zeros,
        "scales": weight.scales,
        "minima": weight.minima,
    }
    if kind.scales == "u4":
        assert weight.scales is not None and weight.minima is not None
        found["scales"] = weight.scales | weight.minima << 4
    parts = [
        _of_rows(values, kind.bytes_of(field), count)
        for (field, count), values in zip(_counts(kind, in_).items(), found.values(), strict=True)
        if values is not None and kind.bytes_of(field)
    ]
    nothing = torch.zeros(_ceil(out, ROWS), 1, ROWS, dtype=torch.uint8)
    return torch.cat([*parts, nothing], 1)[:, _places(kind, in_)].flatten(1)


def _of_rows(values: Tensor, size: int, count: int) -> Tensor:
    """[out, up to count] of numbers of `size` bytes → uint8 [row blocks, count * size, 16]: 16 rows
    of each."""
    out, found = values.shape
    padded = pad(values, (0, count - found, 0, -out % ROWS)).unflatten(0, (-1, ROWS))
    bytes_ = padded.transpose(1, 2).contiguous().view(torch.uint8)
    return bytes_.view(-1, count * size, ROWS)


def _fields(header: Tensor, kind: Kind, shape: tuple[int, int]) -> dict[str, Tensor | None]:
    """The inverse of _header."""
    places = _places(kind, shape[1])
    lines = torch.zeros(len(header), int(places.max()) + 1, ROWS, dtype=torch.uint8)
    lines[:, places] = header.unflatten(1, (-1, ROWS))
    scale = _TYPES[kind.scale]
    types = dict.fromkeys(_counts(kind, shape[1]), torch.uint8) | {"scale": scale, "minimum": scale}
    types["scales"] = torch.int8 if kind.scales == "i8" else torch.uint8
    found: dict[str, Tensor | None] = {}
    at = 0
    for field, count in _counts(kind, shape[1]).items():
        size = count * kind.bytes_of(field)
        part = lines[:, at : at + size].contiguous().view(-1).view(types[field])
        length = kind.group if field in ("scales", "minima") else kind.block
        values = part.view(len(header), -1, ROWS).transpose(1, 2).flatten(0, 1)
        found[field] = values[: shape[0], : _ceil(shape[1], length)].contiguous() if size else None
        at += size
    if kind.scales == "u4":
        both = found["scales"]
        assert both is not None
        found |= {"scales": both & 15, "minima": both >> 4}
    return found if scale != torch.bfloat16 else {name: _float(one) for name, one in found.items()}


def _float(values: Tensor | None) -> Tensor | None:
    """GroupedWeight has no bfloat16."""
    if values is None or values.dtype != torch.bfloat16:
        return values
    return values.float()


def _counts(kind: Kind, in_: int) -> dict[str, int]:
    """Numbers of each field in a row of whole chunks, in the order in which `_places` counts."""
    columns = _ceil(in_, CHUNK) * CHUNK
    blocks, groups = _ceil(columns, kind.block), _ceil(columns, kind.group)
    return dict.fromkeys(("scale", "minimum", "zeros"), blocks) | dict.fromkeys(
        ("scales", "minima"), groups
    )


@cache
def _places(kind: Kind, in_: int) -> Tensor:
    """For every 16 bytes of the header, the number of the line of `_header` that they hold."""
    starts, lines = {}, 0
    for field, count in _counts(kind, in_).items():
        starts[field] = lines
        lines += count * kind.bytes_of(field)
    places: list[int] = []
    for piece in range(_ceil(in_, PIECE)):
        own = _piece_places(kind, starts, range(*_columns(in_, piece)))
        places += own + [lines] * (-len(own) % (LINE // ROWS))
    return torch.tensor(places)


def _piece_places(kind: Kind, starts: dict[str, int], columns: range) -> list[int]:
    places: list[int] = []

    def add(field: str, index: int) -> None:
        size = kind.bytes_of(field)
        places.extend(range(starts[field] + index * size, starts[field] + (index + 1) * size))

    for column in columns[:: kind.group]:
        if column % kind.block == 0:
            for field in ("scale", "minimum", "zeros"):
                add(field, column // kind.block)
        for field in ("scales", "minima"):
            add(field, column // kind.group)
    return places


@cache
def _header_bytes(kind: Kind, in_: int, piece: int) -> int:
    begin, end = _columns(in_, piece)
    blocks = _ceil(end, kind.block) - _ceil(begin, kind.block)
    groups = _ceil(end, kind.group) - _ceil(begin, kind.group)
    block = sum(map(kind.bytes_of, ("scale", "minimum", "zeros")))
    group = sum(map(kind.bytes_of, ("scales", "minima")))
    return _ceil(ROWS * (blocks * block + groups * group), LINE) * LINE


# ---- codes


def _packed_codes(codes: Tensor, bits: int) -> Tensor:
    """uint8 [out, in] → [row blocks, chunks, bytes]."""
    out, in_ = codes.shape
    missing = (0, -in_ % CHUNK, 0, -out % ROWS)
    padded = (pad(codes, missing) if any(missing) else codes).contiguous()
    fours = padded.view(torch.int32).view(-1, ROWS, padded.shape[1] // 4).transpose(1, 2)
    # [row blocks, chunks, 8, rows], 4 codes each
    vectors = fours.contiguous().unflatten(1, (-1, 8))
    parts, shift = [], 0
    for width in _PARTS[bits]:
        part = vectors if width == bits else vectors >> shift & _mask(width)
        parts.append(_joined(part, width))
        shift += width
    joined = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
    return joined.flatten(2).view(torch.uint8)


def _joined(vectors: Tensor, width: int) -> Tensor:
    """Codes of `width` bits, 8 / width of them in a byte."""
    *others, joined = vectors.unflatten(2, (-1, 8 // width)).unbind(3)
    for one in reversed(others):
        joined = joined << width
        joined |= one
    return joined


def _unpacked_codes(packed: Tensor, bits: int) -> Tensor:
    """The inverse of _packed_codes, with the padding."""
    blocks, chunks, _ = packed.shape
    words = packed.contiguous().view(torch.int32).view(blocks, chunks, -1, ROWS)
    vectors = torch.zeros(blocks, chunks, 8, ROWS, dtype=torch.int32)
    at = shift = 0
    for width in _PARTS[bits]:
        part = words[:, :, at : at + width]
        several = torch.stack([part >> i * width & _mask(width) for i in range(8 // width)], 3)
        vectors |= several.flatten(2, 3) << shift
        at, shift = at + width, shift + width
    columns = vectors.flatten(1, 2).transpose(1, 2).contiguous()  # [row blocks, rows, fours]
    return columns.view(torch.uint8).view(blocks * ROWS, chunks * CHUNK)


def _mask(width: int) -> int:
    """A 32-bit number with `width` ones at the end of each byte."""
    return int.from_bytes(bytes([(1 << width) - 1] * 4), "little", signed=True)


def _columns(in_: int, piece: int) -> tuple[int, int]:
    """The columns of a piece, whole chunks of them."""
    return piece * PIECE, min(_ceil(in_, CHUNK) * CHUNK, (piece + 1) * PIECE)


def _chunks_in(in_: int, piece: int) -> int:
    begin, end = _columns(in_, piece)
    return (end - begin) // CHUNK


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
