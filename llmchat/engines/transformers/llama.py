"""The forward pass of the Llama family written out: Llama, Mistral without a sliding window, Qwen2.

It gives the same numbers as transformers' modules and needs none of them: no module tree to walk (half of the time of a small model) and
no import of transformers (seconds of start-up). Every other architecture goes through general.py.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines import Weights
from llmchat.engines.transformers.kv import KVCache
from llmchat.engines.transformers.linear import Scratch, compute_dtype, make_linear
from llmchat.engines.transformers.weights import Tensors

_ROPES = ("default", "linear", "llama3")


def supports(config: dict[str, Any]) -> bool:
    """Whether this forward computes exactly what the architecture says."""
    known = config.get("model_type") in ("llama", "mistral", "qwen2") and config.get("hidden_act", "silu") == "silu"
    sliding = config.get("sliding_window") and config.get("use_sliding_window", config["model_type"] == "mistral")
    return known and not sliding and _rope(config)[1].get("rope_type", "default") in _ROPES and "quantization_config" not in config


class LlamaForward:
    """A loaded model with its KV cache: token ids in, logits of the last position out."""

    def __init__(self, config: dict[str, Any], tensors: Tensors, kind: Weights, device: torch.device):
        self.config = config
        self.dtype = compute_dtype(kind)
        self._device = device
        self._heads: int = config["num_attention_heads"]
        self._kv_heads: int = config.get("num_key_value_heads") or self._heads
        self._head_dim: int = config.get("head_dim") or config["hidden_size"] // self._heads
        self._eps: float = config.get("rms_norm_eps", 1e-6)
        load = _Loader(tensors, kind, device)
        self._embedding = load.plain("model.embed_tokens.weight")
        self._layers = [_Layer(load, f"model.layers.{index}.") for index in range(config["num_hidden_layers"])]
        self._norm = load.plain("model.norm.weight")
        # A head that shares the embedding's matrix stays as it is: a second copy in 8 bit would cost more memory than it saves.
        tied = config.get("tie_word_embeddings", False) or "lm_head.weight" not in tensors.shapes
        self._head = self._embedding if tied else load.plain("lm_head.weight")
        self._frequencies = inverse_frequencies(config, self._head_dim).to(device)
        self.cache = KVCache(len(self._layers), self._kv_heads, self._head_dim, self.dtype, device)

    def read(self, ids: list[int], *, every: bool = False) -> Tensor:
        """Read more tokens, behind those in the cache. Returns logits for what follows the last, [1, vocab], or each of them, [T, vocab]."""
        past, count = self.cache.length, len(ids)
        self.cache.reserve(past + count)
        x = F.embedding(torch.tensor(ids, device=self._device), self._embedding)  # [T, hidden]
        cos, sin = self._rotations(past, count)
        mask = _causal_mask(past, count, self._device)
        for index, layer in enumerate(self._layers):
            x = x + layer.output(self._attend(index, layer.qkv(self._normed(x, layer.attention_norm)), cos, sin, mask))
            gate, up = layer.gate_up(self._normed(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        self.cache.advance(count)
        return F.linear(self._normed(x if every else x[-1:], self._norm), self._head)

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept."""
        self.cache.truncate(length)
        return self.cache.length

    def _attend(self, index: int, qkv: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """qkv: [T, (heads + 2 * kv_heads) * head_dim] → attention output [T, heads * head_dim]."""
        count = qkv.shape[0]
        parts = qkv.view(count, self._heads + 2 * self._kv_heads, self._head_dim).transpose(0, 1)  # [H, T, D]
        turned = _rotate(parts[: self._heads + self._kv_heads], cos, sin)
        keys, values = self.cache.append(index, turned[self._heads :], parts[self._heads + self._kv_heads :])
        queries = turned[: self._heads]
        if count == 1:
            # One query a head: the heads that share keys are attended to as if they were positions, without repeating the keys.
            grouped = queries.reshape(1, self._kv_heads, self._heads // self._kv_heads, self._head_dim)
            return F.scaled_dot_product_attention(grouped, keys[None], values[None]).reshape(1, -1)
        out = F.scaled_dot_product_attention(
            queries[None], keys[None], values[None], attn_mask=mask, is_causal=mask is None, enable_gqa=self._heads != self._kv_heads
        )
        return out[0].transpose(0, 1).reshape(count, -1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self._eps)

    def _rotations(self, past: int, count: int) -> tuple[Tensor, Tensor]:
        """cos and sin, [T, head_dim], of positions past … past + count - 1."""
        angles = torch.outer(torch.arange(past, past + count, device=self._device, dtype=torch.float32), self._frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


class _Layer:
    """Weights of one layer. q, k, v and gate, up are one matrix each: row-wise quantised rows do not mind their neighbours."""

    def __init__(self, load: "_Loader", prefix: str):
        self.attention_norm = load.plain(f"{prefix}input_layernorm.weight")
        self.qkv = load.linear(*(f"{prefix}self_attn.{part}_proj" for part in "qkv"))
        self.output = load.linear(f"{prefix}self_attn.o_proj")
        self.mlp_norm = load.plain(f"{prefix}post_attention_layernorm.weight")
        self.gate_up = load.linear(f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj")
        self.down = load.linear(f"{prefix}mlp.down_proj")


class _Loader:
    """Puts tensors where they belong, each in its final form before the next one is read."""

    def __init__(self, tensors: Tensors, kind: Weights, device: torch.device):
        self._tensors = tensors
        self._kind = kind
        self._device = device
        self._scratch = Scratch()

    def plain(self, name: str) -> Tensor:
        return self._tensors.get(name).to(self._device, compute_dtype(self._kind))

    def linear(self, *names: str) -> nn.Module:
        """One layer from the matrices (and biases) of several, one above the other."""
        weight = (
            torch.cat([self._tensors.get(f"{name}.weight") for name in names])
            if len(names) > 1
            else self._tensors.get(f"{names[0]}.weight")
        )
        biases = [self._tensors.get(f"{name}.bias") for name in names if f"{name}.bias" in self._tensors.shapes]
        return make_linear(weight, torch.cat(biases) if biases else None, self._kind, self._device, self._scratch)


def _causal_mask(past: int, count: int, device: torch.device) -> Tensor | None:
    """[count, past + count], true where a position may look; None where plain causal attention says the same."""
    if past == 0 or count == 1:
        return None
    return torch.ones(count, past + count, dtype=torch.bool, device=device).tril(past)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) in the half-split order of Hugging Face checkpoints. x: [heads, T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _rope(config: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """(theta, scaling) from either generation of config files: rope_parameters, or rope_theta beside rope_scaling."""
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "type" in scaling:
        scaling.setdefault("rope_type", scaling["type"])
    return scaling.get("rope_theta") or config.get("rope_theta") or 10000.0, scaling


def inverse_frequencies(config: dict[str, Any], head_dim: int) -> Tensor:
    """[head_dim / 2] rotary frequencies, scaled as the config says (linear; or llama3, as in Meta's reference code)."""
    theta, scaling = _rope(config)
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling.get("rope_type") == "linear":
        return frequencies / scaling["factor"]
    if scaling.get("rope_type") != "llama3":
        return frequencies
    low, high, old = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    blend = ((old / wavelengths - low) / (high - low)).clamp(0, 1)
    return frequencies * (blend + (1 - blend) / scaling["factor"])
