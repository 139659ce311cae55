"""Qwen3 and the text of Gemma 3 as encoders. Reference: transformers' modeling_….py.

An embedder made of a Qwen3 stays causal; EmbeddingGemma attends in both directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from llmchat.engines.transformers.embedding.encoder import (
    Attention,
    Block,
    Encoder,
    Mlp,
    Norm,
    RmsNorm,
    same,
)
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.families.config_values import NoPlan

_GEMMA_PATTERN = 6


@dataclass(frozen=True)
class ScaledWords:
    """Word vectors times a factor."""

    words: Tensor
    factor: float = 1

    def __call__(self, packed: Packed) -> Tensor:
        x = F.embedding(packed.ids, self.words)
        return x if self.factor == 1 else x * self.factor


def qwen3(config: dict[str, Any], tensors: NamedTensors) -> Encoder:
    """Causal attention with norms on queries and keys."""
    if config.get("use_sliding_window"):
        raise NoPlan("use_sliding_window")
    theta = _theta(config, "rope_theta", 1_000_000.0)
    norms = _Norms(tensors, float(config.get("rms_norm_eps", 1e-6)), 0)
    blocks = []
    for layer in range(int(config["num_hidden_layers"])):
        name = f"layers.{layer}"
        attention = _attention(config, tensors, norms, name, theta=theta, causal=True)
        before, between = "input_layernorm", "post_attention_layernorm"
        blocks += [
            Block(attention, norms.get(f"{name}.{before}")),
            Block(_mlp(tensors, name, "silu"), norms.get(f"{name}.{between}")),
        ]
    words = ScaledWords(tensors.get("embed_tokens.weight"))
    return Encoder(words, tuple(blocks), int(config["hidden_size"]), norms.get("norm"))


def gemma3(config: dict[str, Any], tensors: NamedTensors) -> Encoder:
    """A norm before and after each block; windows in most layers."""
    if config.get("attn_logit_softcapping"):
        raise NoPlan("attn_logit_softcapping")
    norms = _Norms(tensors, float(config.get("rms_norm_eps", 1e-6)), 1)
    blocks: list[Block] = []
    for layer in range(int(config["num_hidden_layers"])):
        blocks += _gemma_layer(config, tensors, norms, layer)
    width = int(config["hidden_size"])
    words = ScaledWords(tensors.get("embed_tokens.weight"), width**0.5)
    return Encoder(words, tuple(blocks), width, norms.get("norm"))


def _gemma_layer(
    config: dict[str, Any], tensors: NamedTensors, norms: "_Norms", layer: int
) -> list[Block]:
    name = f"layers.{layer}"
    both, is_full = bool(config.get("use_bidirectional_attention")), _is_full(config, layer)
    window = int(config.get("sliding_window") or 0)
    # A token sees half of a window that reaches to both sides.
    window = 0 if is_full else window // 2 + 1 if both else window
    theta = (
        _theta(config, "rope_theta", 1_000_000.0, "full_attention")
        if is_full
        else _theta(config, "rope_local_base_freq", 10_000.0, "sliding_attention")
    )
    attention = _attention(
        config, tensors, norms, name, theta=theta, causal=not both, window=window
    )
    kinds = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    first, second, third, fourth = (norms.get(f"{name}.{kind}_layernorm") for kind in kinds)
    return [
        Block(attention, first, second),
        Block(_mlp(tensors, name, "gelu_tanh"), third, fourth),
    ]


def _is_full(config: Mapping[str, Any], layer: int) -> bool:
    kinds = config.get("layer_types")
    if kinds:
        return bool(kinds[layer] == "full_attention")
    return (layer + 1) % int(config.get("sliding_window_pattern") or _GEMMA_PATTERN) == 0


def _theta(config: Mapping[str, Any], name: str, default: float, kind: str = "") -> float:
    """The base of the rotary frequencies. Raises NoPlan for scaled ones."""
    parameters = config.get("rope_parameters") or {}
    parameters = parameters.get(kind, {}) if kind and kind in parameters else parameters
    scaling = config.get("rope_scaling") or {}
    for table in (parameters, scaling):
        if table.get("rope_type", table.get("type", "default")) != "default":
            raise NoPlan("rope_scaling")
    return float(parameters.get("rope_theta") or config.get(name) or default)


def _attention(
    config: Mapping[str, Any],
    tensors: NamedTensors,
    norms: "_Norms",
    name: str,
    *,
    theta: float,
    causal: bool,
    window: int = 0,
) -> Attention:
    own, heads = f"{name}.self_attn", int(config["num_attention_heads"])
    width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    return Attention(
        tensors.linear(f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj"),
        tensors.linear(f"{own}.o_proj"),
        heads,
        int(config.get("num_key_value_heads") or heads),
        float(config.get("query_pre_attn_scalar") or width) ** -0.5,
        norms.get(f"{own}.q_norm"),
        norms.get(f"{own}.k_norm"),
        theta,
        causal,
        window,
    )


def _mlp(tensors: NamedTensors, name: str, activation: str) -> Mlp:
    up = tensors.linear(f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj")
    return Mlp(up, tensors.linear(f"{name}.mlp.down_proj"), activation, gated=True)


@dataclass(frozen=True)
class _Norms:
    """The RMS norms of a checkpoint. added: what their weights lack of the factor."""

    tensors: NamedTensors
    eps: float
    added: float

    def get(self, name: str) -> Norm:
        if f"{name}.weight" not in self.tensors:
            return same
        return RmsNorm(self.tensors.get(f"{name}.weight") + self.added, self.eps)
