"""The Llama family: Llama, Mistral without a sliding window, Qwen2.

`plan` turns a config.json into what an executor runs, and checks the shape of every tensor against
it. The executors, above all the compiled one, trust these shapes. No tensor is read here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmchat.engines.transformers.bitsandbytes_format import is_int8
from llmchat.engines.transformers.tied_heads import HEAD, is_tied
from llmchat.errors import IntegrityError, Mismatch

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
# Of each layer, behind its prefix.
ATTENTION_NORM, MLP_NORM = "input_layernorm.weight", "post_attention_layernorm.weight"
# The linears of a layer in the order in which they are used (compiled: model.h).
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_ARCHITECTURES = ("llama", "mistral", "qwen2")
_ROPE_TYPES = ("default", "linear", "llama3")
# Larger than in any model, and small enough for 32 bits.
_MAX_SIZE = 2**31 - 1
_HINT = "config.json and weights must be of the same model; `llmchat verify` checks what was pulled"


class Dimensions(NamedTuple):
    """The numbers of a config.json that decide shapes; all of them are positive."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, config: Config) -> "Dimensions":
        """Raises Mismatch for sizes that are missing, not positive, or do not fit together."""
        hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
        kv_heads = _size(config, "num_key_value_heads", default=heads)
        dim = _size(config, "head_dim", default=hidden // heads)
        if heads % kv_heads or dim < 2 or dim % 2:
            raise Mismatch(
                f"config.json: {heads} heads of size {dim} cannot share {kv_heads} key/value heads"
            )
        inner, vocabulary = _size(config, "intermediate_size"), _size(config, "vocab_size")
        layers = _size(config, "num_hidden_layers")
        return cls(layers, hidden, heads, kv_heads, dim, inner, vocabulary)

    def linears(self) -> dict[str, tuple[int, int]]:
        """[out, in] of each of LINEARS."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, inner = self.hidden, self.inner
        attention = (queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)
        mlp = (inner, hidden), (inner, hidden), (hidden, inner)
        return dict(zip(LINEARS, attention + mlp, strict=True))


@dataclass(frozen=True)
class LlamaPlan:
    """What an executor needs to know of a checkpoint besides its tensors.

    frequencies: float32 [head_dim / 2], of the rotary embedding. has_tied_head: the output head is
    the embedding's matrix.
    """

    size: Dimensions
    epsilon: float
    frequencies: Tensor
    has_tied_head: bool


def supports(config: dict[str, Any]) -> bool:
    """Whether the executors of this family compute exactly what the config describes."""
    if config.get("model_type") not in _ARCHITECTURES or config.get("hidden_act", "silu") != "silu":
        return False
    slides_by_default = config["model_type"] == "mistral"
    if config.get("sliding_window") and config.get("use_sliding_window", slides_by_default):
        return False
    is_readable = "quantization_config" not in config or is_int8(config)
    return is_readable and _rope(config)[1].get("rope_type", "default") in _ROPE_TYPES


def plan(config: Config, shapes: Shapes) -> LlamaPlan:
    """Raises Mismatch for an invalid config, IntegrityError for tensors that do not fit it."""
    size = check_tensors(config, shapes)
    frequencies = inverse_frequencies(config, size.head_dim)
    return LlamaPlan(size, _epsilon(config), frequencies, is_tied(config, shapes))


def layer_prefix(index: int) -> str:
    """What the names of a layer's tensors begin with."""
    return f"model.layers.{index}."


# ---- shapes


def check_tensors(config: Config, shapes: Shapes) -> Dimensions:
    """The dimensions. Raises IntegrityError at the first tensor whose shape is not theirs."""
    size = Dimensions.of(config)
    _epsilon(config)
    if size.layers > len(shapes):
        # Before anything is allocated for each layer.
        raise Mismatch(
            f"config.json has {size.layers:,} layers; the weights are {len(shapes):,} tensors"
        )
    for name, shape in _expected(size):
        _check_shape(name, shapes.get(name), shape)
        _check_bias(f"{name.removesuffix('weight')}bias", shapes, shape[:1])
    if HEAD in shapes:
        _check_shape(HEAD, shapes[HEAD], (size.vocabulary, size.hidden))
    return size


def _expected(size: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield EMBEDDING, (size.vocabulary, size.hidden)
    yield NORM, (size.hidden,)
    for index in range(size.layers):
        prefix = layer_prefix(index)
        yield f"{prefix}{ATTENTION_NORM}", (size.hidden,)
        yield f"{prefix}{MLP_NORM}", (size.hidden,)
        for name, shape in size.linears().items():
            yield f"{prefix}{name}.weight", shape


def _check_bias(name: str, shapes: Shapes, shape: tuple[int, ...]) -> None:
    """Queries, keys and values are used as one matrix: all of them have a bias, or none."""
    if name in shapes:
        _check_shape(name, shapes[name], shape)
        return
    of_queries = name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")
    if of_queries in shapes:
        raise IntegrityError(f"the weights have `{of_queries}` but not `{name}`", _HINT)


def _check_shape(name: str, shape: tuple[int, ...] | None, expected: tuple[int, ...]) -> None:
    if shape is None:
        raise IntegrityError(f"the weights have no `{name}`, which config.json requires", _HINT)
    if tuple(shape) != expected:
        raise IntegrityError(
            f"the tensor `{name}` is {_times(shape)}; config.json requires {_times(expected)}",
            _HINT,
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


# ---- the rotary embedding


def inverse_frequencies(config: Config, head_dim: int) -> Tensor:
    """[head_dim / 2], scaled as the config says: linear, or llama3 as in Meta's reference code."""
    frequencies = _frequencies(config, head_dim)
    if not bool(torch.isfinite(frequencies).all()):
        raise Mismatch("config.json: rope_theta or rope_scaling gives invalid rotary frequencies")
    return frequencies


def _rope(config: Config) -> tuple[float, dict[str, Any]]:
    """(theta, scaling), from old configs (rope_theta, rope_scaling) or new (rope_parameters)."""
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "type" in scaling:
        scaling.setdefault("rope_type", scaling["type"])
    return scaling.get("rope_theta") or config.get("rope_theta") or 10000.0, scaling


def _frequencies(config: Config, head_dim: int) -> Tensor:
    theta, scaling = _rope(config)
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling.get("rope_type") == "linear":
        return frequencies / scaling["factor"]
    if scaling.get("rope_type") != "llama3":
        return frequencies
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained_length = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    blend = ((trained_length / wavelengths - low) / (high - low)).clamp(0, 1)
    return frequencies * (blend + (1 - blend) / scaling["factor"])


# ---- values of a config.json


def _size(config: Config, name: str, default: int | None = None) -> int:
    """A positive integer. default: for a key that is missing or null."""
    value = config.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_SIZE:
        raise _invalid(name, value)
    return value


def _epsilon(config: Config) -> float:
    value = config.get("rms_norm_eps", 1e-6)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise _invalid("rms_norm_eps", value)
    return float(value)


def _invalid(name: str, value: Any) -> Mismatch:
    text = repr(value)
    return Mismatch(
        f"config.json: invalid `{name}`: {text if len(text) <= 40 else text[:40] + '…'}"
    )
