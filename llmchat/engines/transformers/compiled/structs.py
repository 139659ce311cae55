"""The structures that step.c takes, field by field, and how tensors become their pointers."""

import ctypes
from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from llmchat.engines.transformers.pytorch.linear import finite
from llmchat.errors import IntegrityError
from llmchat.settings.sampling import DISTRIBUTION, SAMPLING_SETTINGS
from llmchat.settings.types import base_type

# Linears of a layer in the order of step.c.
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
# Numbers that are taken at once, and positions of keys and values that lie together (vectors.h, attention.h).
LANES, SPAN = 16, 256
# Outputs are made in blocks of so many: what is read for all of a block is padded to it.
BLOCK = 32


class Matrix(Structure):
    _fields_ = [
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("out", c_int64),
        ("in_", c_int64),
    ]


class Layer(Structure):
    _fields_ = [
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("linear", Matrix * len(LINEARS)),
    ]


class Model(Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "inner", "vocabulary")
        ),
        ("embedding", c_void_p),
        ("frequencies", c_void_p),
        ("norm", c_void_p),
        ("layer", POINTER(Layer)),
        ("head", Matrix),
        ("eps", c_float),
    ]


class Choosing(Structure):
    """The fields of Distribution in their order, then the random number that picks the token."""

    _fields_ = [
        *(
            (name, c_int64 if base_type(SAMPLING_SETTINGS[name]) is int else c_float)
            for name in DISTRIBUTION
        ),
        ("point", c_double),
    ]


class Candidate(Structure):
    _fields_ = [("chance", c_float), ("id", c_int32)]


class Lora(Structure):
    _fields_ = [("a", c_void_p), ("b", c_void_p), ("rank", c_int64), ("scale", c_float)]


class Text(Structure):
    _fields_ = [
        ("ids", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("adapters", c_void_p),
        ("strengths", c_void_p),
        *((name, c_int64) for name in ("rows", "past", "capacity", "adapter_count", "every")),
    ]


class OpenMP(Structure):
    _fields_ = [("parallel", c_void_p), ("threads_here", c_void_p)]


class Kept:
    """Structures with pointers into tensors, and the tensors, which must live as long."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def pointer(
        self, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], name: str = "a tensor"
    ) -> int:
        """The address of a tensor's numbers. Raises IntegrityError for one that is not what step.c takes it for."""
        if (
            tensor.dtype != dtype
            or tuple(tensor.shape) != shape
            or not tensor.is_contiguous()
            or tensor.device.type != "cpu"
        ):
            is_, wanted = (
                f"{'x'.join(map(str, one))} {kind}"
                for one, kind in ((tensor.shape, tensor.dtype), (shape, dtype))
            )
            raise IntegrityError(f"{name} is {is_}; the compiled step needs {wanted}")
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
        """weight: int8 [out, in], where it lies; scb: fp32 [out]; shape: what [out, in] must be."""
        out, in_ = shape
        _check(f"the scale of {name}", scb, (out,))
        scale = self.pointer(
            padded(finite(scb.float(), f"the scale of {name}") / 127), torch.float32, (_up(out),)
        )
        shift = None
        if bias is not None:
            _check(f"the bias of {name}", bias, (out,))
            shift = self.pointer(
                padded(finite(bias.float(), f"the bias of {name}")), torch.float32, (_up(out),)
            )
        return Matrix(self.pointer(weight, torch.int8, shape, name), scale, shift, out, in_)

    def lora(self, a: Tensor, b: Tensor, scale: float, shape: tuple[int, int]) -> Lora:
        """a: [rank, in]; b: [out, rank]; shape: what [out, in] must be."""
        rank = a.shape[0]
        _check("A of an adapter", a, (rank, shape[1]))
        _check("B of an adapter", b, (shape[0], rank))
        odd = rank % 2
        a = torch.nn.functional.pad(a.to(torch.bfloat16), (0, 0, 0, odd)).contiguous()
        b = torch.nn.functional.pad(b.to(torch.bfloat16), (0, odd, 0, -b.shape[0] % BLOCK))
        pairs = b.view(-1, LANES, a.shape[0] // 2, 2).transpose(1, 2).contiguous()
        down, up = (
            self.pointer(a, torch.bfloat16, tuple(a.shape)),
            self.pointer(pairs, torch.bfloat16, tuple(pairs.shape)),
        )
        return Lora(down, up, a.shape[0], scale)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise IntegrityError(
            f"{name} is {'x'.join(map(str, tensor.shape))}; the model needs {'x'.join(map(str, shape))}"
        )


def padded(x: Tensor) -> Tensor:
    """A copy, the last dimension filled with zeros to a multiple of BLOCK."""
    wide = torch.zeros(*x.shape[:-1], _up(x.shape[-1]), dtype=x.dtype)
    wide[..., : x.shape[-1]] = x
    return wide


def addresses(tensors: list[Tensor]) -> "ctypes.Array[c_void_p]":
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _up(count: int) -> int:
    return -(-count // BLOCK) * BLOCK
