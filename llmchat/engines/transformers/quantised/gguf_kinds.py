"""The type of each tensor of a GGUF file that is written, and its bytes.

Which tensors stay in 32 bits is as in llama.cpp's converter and in its quantize tool.
"""

import re
from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.engines.transformers.quantised.four_bits import AnyGrid, Grid, quantised
from llmchat.engines.transformers.quantised.gguf_blocks import LAYOUTS, Layout, blocks_of
from llmchat.engines.transformers.quantised.signed_bits import SignedGrid
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import IntegrityError
from llmchat.gguf_file import GgmlType
from llmchat.gguf_file.mixes import Facts, kinds_in_mix
from llmchat.gguf_file.types import type_named

# Routers, kernels of convolutions, norms of each head, and the mixes of streams.
_WHOLE = re.compile(
    r"norm\.weight$|ffn_gate_inp|shortconv\.conv|ssm_conv1d|altup_\w+_coef|attn_sinks"
)
# Numbers that are converted at once.
AT_ONCE = 1 << 22
# Q8_0 is near enough as gguf-py rounds it.
FITTED = tuple(name for name in LAYOUTS if name != "Q8_0")


def kinds_of(
    shapes: Mapping[str, tuple[int, ...]], wanted: str, facts: Facts
) -> dict[str, GgmlType]:
    """The type of each tensor in a file of the mix `wanted`."""
    matrices = {
        name: shape
        for name, shape in shapes.items()
        if len(shape) > 1 and name.endswith(".weight") and not _WHOLE.search(name)
    }
    found = dict.fromkeys(shapes, type_named("F32"))
    mixed = kinds_in_mix(matrices, wanted, facts)
    return found | {name: type_named(kind) for name, kind in mixed.items()}


def size_of(kind: GgmlType, shape: tuple[int, ...]) -> int:
    return prod(shape) // kind.block * kind.bytes


def copied(weight: GroupedWeight, kind: GgmlType) -> bytes | None:
    """The bytes of a weight whose numbers a type holds as they are; None for any other."""
    layout = LAYOUTS.get(kind.name)
    if layout is None or not layout.holds(weight):
        return None
    return bytes(blocks_of(kind, weight).numpy().tobytes())


def encoded(
    tensor: Tensor, kind: GgmlType, name: str, importance: Tensor | None = None
) -> Iterator[bytes]:
    """The bytes of a tensor, some rows after the other. importance: how much each input counts.

    Raises IntegrityError for NaN and infinity, and for numbers that the type cannot hold.
    """
    rows = tensor.reshape(-1, tensor.shape[-1])
    for part in rows.split(max(1, AT_ONCE // rows.shape[1])):
        values = finite(part.float(), name)
        if kind.name in FITTED:
            yield _fitted(values, kind, name, importance)
        else:
            yield _rounded(values, kind, name)


def _fitted(values: Tensor, kind: GgmlType, name: str, importance: Tensor | None) -> bytes:
    weight = quantised(values, importance, grid_of(LAYOUTS[kind.name]))
    for part in (weight.scale, weight.minimum):
        if part is not None and not bool(torch.isfinite(part).all()):
            raise _too_large(name, kind)
    return bytes(blocks_of(kind, weight).numpy().tobytes())


def grid_of(layout: Layout) -> AnyGrid:
    """The grid of a type."""
    if layout.has_minimum:
        levels = 1 if layout.scales is None else layout.scales[1]
        return Grid(layout.bits, layout.group, layout.block, levels, torch.float16)
    return SignedGrid(
        layout.bits, layout.group, layout.block, layout.zero, layout.scales, layout.table,
        has_powers=layout.has_powers,
    )  # fmt: skip


def _rounded(values: Tensor, kind: GgmlType, name: str) -> bytes:
    import gguf

    if kind.name == "F16" and float(values.abs().max()) > torch.finfo(torch.float16).max:
        raise _too_large(name, kind)
    number = gguf.GGMLQuantizationType[kind.name]
    return bytes(gguf.quants.quantize(values.numpy(), number).tobytes())


def _too_large(name: str, kind: GgmlType) -> IntegrityError:
    return IntegrityError(
        f"`{name}` has numbers that {kind.name} cannot hold", "gguf:BF16 can hold them"
    )
