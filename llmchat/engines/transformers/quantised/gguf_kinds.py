"""The type of each tensor of a GGUF file that is written, and its bytes.

Which tensors stay in 32 bits is as in llama.cpp's converter and in its quantize tool.
"""

import re
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.errors import IntegrityError
from llmchat.gguf_file import GgmlType
from llmchat.gguf_file.types import type_named

# Routers, kernels of convolutions, norms of each head, and the mixes of streams.
_WHOLE = re.compile(
    r"norm\.weight$|ffn_gate_inp|shortconv\.conv|ssm_conv1d|altup_\w+_coef|attn_sinks"
)
# In files of fewer than 8 bits these have 8: an error in them reaches every token.
_ENDS = ("token_embd.weight", "output.weight")
# Numbers that are converted at once.
AT_ONCE = 1 << 22


def kind_of(name: str, shape: tuple[int, ...], wanted: str) -> GgmlType:
    """The type of a tensor in a file of the kind `wanted`. Rows that are not whole blocks become
    F16.
    """
    if len(shape) < 2 or not name.endswith(".weight") or _WHOLE.search(name):
        return type_named("F32")
    kind = type_named(wanted)
    if name in _ENDS and kind.bits < 8:
        kind = type_named("Q8_0")
    return type_named("F16") if shape[-1] % kind.block else kind


def size_of(kind: GgmlType, shape: tuple[int, ...]) -> int:
    return prod(shape) // kind.block * kind.bytes


def encoded(tensor: Tensor, kind: GgmlType, name: str) -> Iterator[bytes]:
    """The bytes of a tensor, some rows after the other.

    Raises IntegrityError for NaN and infinity, and for numbers that F16 cannot hold.
    """
    rows = tensor.reshape(-1, tensor.shape[-1])
    for part in rows.split(max(1, AT_ONCE // rows.shape[1])):
        yield _encode(finite(part.float(), name), kind, name)


def _encode(values: Tensor, kind: GgmlType, name: str) -> bytes:
    import gguf

    if kind.name == "F16" and float(values.abs().max()) > torch.finfo(torch.float16).max:
        raise IntegrityError(
            f"`{name}` has numbers that F16 cannot hold", "gguf:BF16 can hold them"
        )
    number = gguf.GGMLQuantizationType[kind.name]
    return bytes(gguf.quants.quantize(values.numpy(), number).tobytes())
