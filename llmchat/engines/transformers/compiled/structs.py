"""The structures that step.c takes, and the tensors behind their pointers.

The C code trusts every shape. Whatever is handed to it goes through TensorRefs, which checks it.
"""

import ctypes
from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.errors import IntegrityError
from llmchat.settings.sampling import DISTRIBUTION, SAMPLING_SETTINGS
from llmchat.settings.types import base_type

# Numbers in a vector (vectors.h), and positions of a span of keys and values (kv_layout.h).
LANES, SPAN = 16, 256
# Outputs of a panel (products.h): scales, biases and adapters are padded to it.
PANEL_COLUMNS = 32
# The most query heads that may share keys (attention_kernel.h: QUERY_BLOCK), and the largest head.
MAX_SHARED_HEADS, MAX_HEAD_DIM = 384, 1024
# The most streams of a token (model.h).
MAX_STREAMS = 8


class Grouping(Structure):
    _fields_ = [
        (name, c_int32)
        for name in (
            "bits", "halves", "block_groups", "scale_type", "scales",
            "has_minimum", "has_minima", "has_zeros", "zero", "has_table",
        )
    ]  # fmt: skip


class Matrix(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("weight", "scale", "bias", "grouping", "order")),
        *((name, c_int64) for name in ("out", "in_", "block_bytes")),
    ]


class Norm(Structure):
    _fields_ = [
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("count", c_int64),
        ("group", c_int64),
        ("eps", c_float),
        ("subtracts_mean", c_int32),
        ("is_shared", c_int32),
    ]


class Heads(Structure):
    _fields_ = [
        (name, c_int64)
        for name in ("count", "width", "start", "stride", "together", "group_stride")
    ]


class Rotary(Structure):
    _fields_ = [
        ("frequencies", c_void_p),
        ("long_frequencies", c_void_p),
        ("half", c_int64),
        ("first", c_int64),
        ("scale", c_float),
        ("long_scale", c_float),
        ("is_interleaved", c_int32),
        ("counts", c_int32),
    ]


class Activation(Structure):
    _fields_ = [("kind", c_int64), *((name, c_float) for name in ("a", "b", "gate_scale"))]


class Block(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("kind", "first_linear", "linear_count", "inputs")),
        ("linear", c_void_p),
        ("details", c_void_p),
        ("norm", Norm),
        ("post_norm", Norm),
        ("stream_norm", Norm),
        ("scale", c_float),
        ("factor", c_float),
        ("saves", c_int32),
        ("reads_saved", c_int32),
    ]


class Attention(Structure):
    _fields_ = [
        ("width", c_int64),
        *((name, Heads) for name in ("queries", "keys", "values", "gates")),
        *((name, Norm) for name in ("query_norm", "key_norm", "value_norm")),
        *((name, c_int64) for name in ("rotary", "second_rotary", "cache", "window", "chunk")),
        *((name, c_int64) for name in ("sees", "reach")),
        *((name, c_void_p) for name in ("sinks", "slopes", "distances")),
        *((name, c_float) for name in ("scale", "softcap", "clip")),
        *((f"position_{name}", c_float) for name in ("beta", "length", "shift")),
        ("norms_rotated", c_int32),
        ("shares", c_int32),
    ]


class LatentAttention(Structure):
    _fields_ = [
        ("attention", Attention),
        ("query_norm", Norm),
        ("latent_norm", Norm),
        *((name, c_int64) for name in ("plain", "value_width")),
        *((name, c_void_p) for name in ("to_latent", "to_values")),
    ]


class Mlp(Structure):
    _fields_ = [("activation", Activation), ("cutoff", c_float), ("cuts", c_int32)]


class Convolution(Structure):
    _fields_ = [
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("channels", c_int64),
        ("kernel", c_int64),
    ]


class DeltaNet(Structure):
    _fields_ = [
        ("width", c_int64),
        *((name, Heads) for name in ("queries", "keys", "values", "gates", "beta", "decay")),
        ("convolution", Convolution),
        ("rate", c_void_p),
        ("time_bias", c_void_p),
        ("norm", Norm),
        ("pairs", c_int64),
        ("by_channel", c_int32),
        ("sigmoid_gates", c_int32),
    ]


class Mamba(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("heads", "width", "state", "groups")),
        ("convolution", Convolution),
        *((name, c_void_p) for name in ("rate", "time_bias", "skip")),
        ("norm", Norm),
        *((name, c_float) for name in ("gate_factor", "time_factor", "time_least", "time_most")),
        ("gate_after", c_int32),
    ]


class RwkvTime(Structure):
    _fields_ = [("decay", c_void_p), ("first", c_void_p), ("mixes", c_void_p)]


class RwkvChannel(Structure):
    _fields_ = [("mixes", c_void_p)]


class Rwkv7Time(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("heads", "width", "pairs")),
        *((name, c_void_p) for name in ("mixes", "key_scale", "key_mix", "bonus")),
        ("norm", Norm),
        ("is_first", c_int32),
    ]


class Experts(Structure):
    _fields_ = [
        *(
            (name, c_void_p)
            for name in ("router", "router_bias", "correction", "expert_scale", "shared_gate")
        ),
        *(
            (name, c_int64)
            for name in (
                "experts", "top", "inner", "inputs", "shared_inner", "shared_inputs", "score",
                "groups", "top_groups", "group_members",
            )
        ),
        ("activation", Activation),
        ("shared_activation", Activation),
        *(
            (f"{name}_norm", Norm)
            for name in ("router", "expert", "expert_post", "shared", "shared_post")
        ),
        ("sum_offset", c_float),
        ("factor", c_float),
        ("normalised", c_int32),
        ("weights_input", c_int32),
    ]  # fmt: skip


class LayerInput(Structure):
    _fields_ = [
        ("first", c_int64),
        ("activation", Activation),
        ("scale", c_void_p),
        ("stream_norm", Norm),
    ]


class NoDetails(Structure):
    _fields_ = []


class Laurel(Structure):
    _fields_ = [("norm", Norm)]


class MixStreams(Structure):
    _fields_ = [
        ("router", c_void_p),
        ("coefficients", c_void_p),
        ("streams", c_int64),
        ("norm", Norm),
        ("corrects", c_int32),
    ]


class LayerInputs(Structure):
    _fields_ = [
        ("embedding", c_void_p),
        ("vocabulary", c_int64),
        ("linear", Matrix),
        ("norm", Norm),
        *((name, c_float) for name in ("scale", "linear_scale", "factor")),
    ]


class Model(Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                "blocks",
                "encoder_blocks",
                "linears",
                "hidden",
                "vocabulary",
                "rotaries",
            )
        ),
        ("embedding", c_void_p),
        ("positions", c_void_p),
        ("rotary", c_void_p),
        ("block", POINTER(Block)),
        ("embedding_norm", Norm),
        ("norm", Norm),
        ("head", Matrix),
        ("tokens", Matrix),
        *((name, c_float) for name in ("embedding_scale", "logit_scale", "logit_softcap")),
        ("layer_inputs", c_void_p),
    ]


class SamplingParams(Structure):
    """The fields of Distribution in their order, then the random number that picks the token."""

    _fields_ = [
        *(
            (name, c_int64 if base_type(SAMPLING_SETTINGS[name]) is int else c_float)
            for name in DISTRIBUTION
        ),
        ("point", c_double),
    ]


class Candidate(Structure):
    _fields_ = [("weight", c_float), ("id", c_int32)]


class Lora(Structure):
    _fields_ = [("a", c_void_p), ("b", c_void_p), ("rank", c_int64), ("scale", c_float)]


class SequenceRows(Structure):
    _fields_ = [
        ("ids", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("states", c_void_p),
        ("adapters", c_void_p),
        ("strengths", c_void_p),
        *((name, c_int64) for name in ("rows", "past", "capacity", "adapter_count", "all_logits")),
        *((name, c_int64) for name in ("is_long", "context", "memory", "memory_capacity")),
        ("is_int8", c_int64),
    ]


class OpenMP(Structure):
    _fields_ = [("parallel", c_void_p), ("team_size", c_void_p)]


class TensorRefs:
    """Makes pointers and structures of tensors, and keeps the tensors alive as long as itself."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._structures: list[Any] = []

    def keep(self, structure: "ctypes.Structure | ctypes.Array[Any]") -> int:
        """The address of a structure or an array, which lives as long as this object."""
        self._structures.append(structure)
        return ctypes.addressof(structure)

    def pointer(
        self, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], name: str = "a tensor"
    ) -> int:
        """The address of a tensor's numbers.

        Raises IntegrityError unless it is a contiguous CPU tensor of this type and shape.
        """
        contiguous = tensor.is_contiguous() and tensor.device.type == "cpu"
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not contiguous:
            found, needed = f"{_times(tensor.shape)} {tensor.dtype}", f"{_times(shape)} {dtype}"
            raise IntegrityError(f"{name} is {found}; the compiled step needs {needed}")
        self._tensors.append(tensor)
        return int(tensor.data_ptr())

    def matrix(
        self,
        weight: Tensor,
        scb: Tensor,
        bias: Tensor | None = None,
        *,
        shape: tuple[int, int],
        name: str = "a matrix",
    ) -> Matrix:
        """A Matrix that uses `weight` in place, int8 [out, in], and copies scb and bias, [out].

        shape: what [out, in] must be.
        """
        out, in_ = shape
        scale = self.per_output(scb, out, f"the scale of {name}", divisor=127)
        shift = None if bias is None else self.per_output(bias, out, f"the bias of {name}")
        address = self.pointer(weight, torch.int8, shape, name)
        return Matrix(address, scale, shift, None, None, out, in_, 0)

    def per_output(self, values: Tensor, out: int, name: str, divisor: int = 1) -> int:
        """The address of a copy of `values`, [out], divided, and padded to whole panels."""
        check_shape(name, values, (out,))
        padded = pad(finite(values.float(), name) / divisor, (0, -out % PANEL_COLUMNS))
        return self.pointer(padded, torch.float32, (out + -out % PANEL_COLUMNS,))

    def lora(self, a: Tensor, b: Tensor, scale: float, shape: tuple[int, int]) -> Lora:
        """A Lora of copies of a, [rank, in], and b, [out, rank]; shape: what [out, in] must be."""
        out, in_ = shape
        rank = a.shape[0]
        check_shape("A of an adapter", a, (rank, in_))
        check_shape("B of an adapter", b, (out, rank))
        even = rank + rank % 2
        a = pad(a.to(torch.bfloat16), (0, 0, 0, rank % 2)).contiguous()
        b = pad(b.to(torch.bfloat16), (0, rank % 2, 0, -out % PANEL_COLUMNS))
        pairs = b.view(-1, LANES, even // 2, 2).transpose(1, 2).contiguous()
        down = self.pointer(a, torch.bfloat16, (even, in_))
        up = self.pointer(pairs, torch.bfloat16, tuple(pairs.shape))
        return Lora(down, up, even, scale)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises IntegrityError unless a tensor has this shape."""
    if tuple(tensor.shape) != shape:
        raise IntegrityError(f"{name} is {_times(tensor.shape)}; the model needs {_times(shape)}")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
