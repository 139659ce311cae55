"""Makes the structures of csrc/model.h of weights in groups.

The C code trusts the bytes of a weight as little as their origin: they may come from any file. Here
their number is checked against the layout, and an order of columns against the columns.
"""

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled.structs import Grouping, Matrix, TensorRefs, check_shape
from llmchat.engines.transformers.quantised.packed import Kind, kind_named, packed_bytes
from llmchat.engines.transformers.quantised.types import PackedWeight
from llmchat.errors import IntegrityError

# The order of the enumerations in model.h.
_SCALE_TYPES = ("f16", "bf16", "f32")
_SCALES = ("", "u8", "i8", "u4")
# csrc multiplies numbers of a table plus this.
_TABLE_ZERO = 128
_ROWS = 16


def grouped_matrix(
    refs: TensorRefs,
    packed: PackedWeight,
    bias: Tensor | None = None,
    *,
    shape: tuple[int, int],
    name: str = "a matrix",
) -> Matrix:
    """A Matrix that uses the weight in place. shape: what [out, in] must be.

    Raises IntegrityError for another shape, or bytes that are not those of the layout.
    """
    out, in_ = shape
    if tuple(packed.shape) != shape:
        found, needed = (" x ".join(map(str, one)) for one in (packed.shape, shape))
        raise IntegrityError(f"{name} is {found}; the model needs {needed}")
    kind = kind_named(packed.kind)
    size = packed_bytes(packed.kind, shape)
    address = refs.pointer(packed.data, torch.uint8, (size,), name)
    shift = None if bias is None else refs.per_output(bias, out, f"the bias of {name}")
    order = None if packed.order is None else _order(refs, packed.order, in_, name)
    block_bytes = (size - _table_bytes(packed)) // -(-out // _ROWS)
    grouping = refs.keep(_grouping(kind))
    return Matrix(address, None, shift, grouping, order, out, in_, block_bytes)


def _grouping(kind: Kind) -> Grouping:
    has_minima = kind.minimum == "minima" and kind.scales != "u4"
    return Grouping(
        kind.bits, 32 // kind.group, kind.block // kind.group, _SCALE_TYPES.index(kind.scale),
        _SCALES.index(kind.scales), bool(kind.minimum), has_minima, kind.zeros,
        _TABLE_ZERO if kind.table else kind.zero, kind.table,
    )  # fmt: skip


def _order(refs: TensorRefs, order: Tensor, in_: int, name: str) -> int:
    check_shape(f"the order of {name}", order, (in_,))
    if not torch.equal(order.sort().values, torch.arange(in_, dtype=order.dtype)):
        raise IntegrityError(f"the order of the columns of {name} does not name each of them once")
    return refs.pointer(order.to(torch.int32), torch.int32, (in_,), name)


def rows_of(packed: PackedWeight, first: int, out: int) -> PackedWeight | None:
    """The rows from `first` on, in place; None unless they begin at a whole block of rows."""
    rows, in_ = packed.shape
    if first == 0 and out == rows:
        return packed
    if first % _ROWS or first + out > rows:
        return None
    table = packed.data[: _table_bytes(packed)]
    per_block = packed_bytes(packed.kind, (_ROWS, in_)) - len(table)
    begin, blocks = len(table) + first // _ROWS * per_block, -(-out // _ROWS)
    data = packed.data[begin : begin + blocks * per_block]
    data = torch.cat([table, data]) if len(table) else data
    return PackedWeight(packed.kind, data, (out, in_), packed.order)


def _table_bytes(packed: PackedWeight) -> int:
    return 64 if kind_named(packed.kind).table else 0
