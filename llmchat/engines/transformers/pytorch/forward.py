"""The forward pass of the Llama family written out: Llama, Mistral without a sliding window, Qwen2.

It gives the same numbers as transformers' modules and needs none of them: no module tree to walk (half of the time of a small model) and
no import of transformers (seconds of start-up). Every other architecture goes through general.py.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.bitsandbytes_format import is_int8
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families.llama import check_tensors
from llmchat.engines.transformers.live_lora import AdaptedLinear, Switch, add_live
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.linear import (
    DequantBuffer,
    compute_dtype,
    int8_linear,
    make_linear,
)
from llmchat.engines.transformers.tied_heads import is_tied
from llmchat.engines.transformers.weights import Tensors
from llmchat.errors import Mismatch
from llmchat.settings.types import Weights

_ROPES = ("default", "linear", "llama3")


def supports(config: dict[str, Any]) -> bool:
    """Whether this forward computes exactly what the architecture says."""
    known = (
        config.get("model_type") in ("llama", "mistral", "qwen2")
        and config.get("hidden_act", "silu") == "silu"
    )
    sliding = config.get("sliding_window") and config.get(
        "use_sliding_window", config["model_type"] == "mistral"
    )
    readable = "quantization_config" not in config or is_int8(config)
    return (
        known
        and not sliding
        and readable
        and _rope(config)[1].get("rope_type", "default") in _ROPES
    )


class TorchForward(Forward):
    """A loaded model: token ids in, logits out."""

    batches = True
    exact = False

    def __init__(
        self, config: dict[str, Any], tensors: Tensors, kind: Weights, device: torch.device
    ):
        self.config = config
        self.dtype = compute_dtype(kind)
        self._device = device
        size = check_tensors(config, tensors.shapes)
        self._heads, self._kv_heads, self._head_dim = size.heads, size.kv_heads, size.head_dim
        self._eps: float = config.get("rms_norm_eps", 1e-6)
        self._switch = Switch()
        load = _Loader(tensors, kind, device, self._switch)
        self._embedding = load.plain("model.embed_tokens.weight")
        self._layers = [_Layer(load, f"model.layers.{index}.") for index in range(size.layers)]
        self._norm = load.plain("model.norm.weight")
        # A head that shares the embedding's matrix stays as it is: a second copy in 8 bit would cost more memory than it saves.
        self._head = (
            self._embedding if is_tied(config, tensors.shapes) else load.plain("lm_head.weight")
        )
        self._frequencies = inverse_frequencies(config, self._head_dim).to(device)

    def new_cache(self) -> KVCache:
        return KVCache(len(self._layers), self._kv_heads, self._head_dim, self.dtype, self._device)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """Read more tokens of several texts at once, each behind its cache. Returns logits for each: [1, vocab], or [T, vocab] with `all_logits`."""
        by_adapters = groupby(
            sorted(range(len(sequences)), key=lambda index: _identity(sequences[index])),
            key=lambda index: sequences[index].adapters,
        )
        logits: list[Tensor] = [None] * len(sequences)  # type: ignore[list-item]
        for adapters, indices in ((adapters, list(indices)) for adapters, indices in by_adapters):
            self._switch.active = adapters
            for index, result in zip(
                indices, self._run_batch([sequences[index] for index in indices]), strict=True
            ):
                logits[index] = result
        return logits

    def _run_batch(self, sequences: list[SequenceInput]) -> list[Tensor]:
        rows = [
            _Rows(sequence.cache, sequence.cache.length, len(sequence.ids), self._device)
            for sequence in sequences
        ]
        for row in rows:
            row.cache.reserve(row.past + row.count)
        x = F.embedding(
            torch.tensor(
                [token for sequence in sequences for token in sequence.ids], device=self._device
            ),
            self._embedding,
        )  # [T, hidden]
        cos, sin = self._rotations(rows)
        counts = [row.count for row in rows]
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(self._normed(x, layer.attention_norm)).split(counts)
            turned = zip(rows, qkv, cos, sin, strict=True)
            x = x + layer.output(
                torch.cat([self._attend(index, row, part, c, s) for row, part, c, s in turned])
            )
            gate, up = layer.gate_up(self._normed(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        for row in rows:
            row.cache.advance(row.count)
        wanted = torch.cat(
            [
                states if sequence.all_logits else states[-1:]
                for sequence, states in zip(sequences, x.split(counts), strict=True)
            ]
        )
        wanted = self._normed(wanted, self._norm)
        logits = F.linear(wanted, self._head)
        add_live(logits, wanted, {"lm_head": len(self._head)}, self._switch)
        return list(
            logits.split(
                [len(sequence.ids) if sequence.all_logits else 1 for sequence in sequences]
            )
        )

    def _attend(self, index: int, rows: "_Rows", qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """qkv of one text: [T, (heads + 2 * kv_heads) * head_dim] → attention output [T, heads * head_dim]."""
        count = rows.count
        parts = qkv.view(count, self._heads + 2 * self._kv_heads, self._head_dim).transpose(
            0, 1
        )  # [H, T, D]
        turned = _rotate(parts[: self._heads + self._kv_heads], cos, sin)
        keys, values = rows.cache.append(
            index, turned[self._heads :], parts[self._heads + self._kv_heads :]
        )
        queries = turned[: self._heads]
        if count == 1:
            # One query a head: the heads that share keys are attended to as if they were positions, without repeating the keys.
            grouped = queries.reshape(
                1, self._kv_heads, self._heads // self._kv_heads, self._head_dim
            )
            return F.scaled_dot_product_attention(grouped, keys[None], values[None]).reshape(1, -1)
        out = F.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=rows.mask,
            is_causal=rows.mask is None,
            enable_gqa=self._heads != self._kv_heads,
        )
        return out[0].transpose(0, 1).reshape(count, -1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self._eps)

    def _rotations(self, rows: list["_Rows"]) -> tuple[list[Tensor], list[Tensor]]:
        """cos and sin of the positions of each text, [T, head_dim]."""
        positions = torch.cat(
            [
                torch.arange(
                    row.past, row.past + row.count, device=self._device, dtype=torch.float32
                )
                for row in rows
            ]
        )
        angles = torch.outer(positions, self._frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        counts = [row.count for row in rows]
        return list(angles.cos().to(self.dtype).split(counts)), list(
            angles.sin().to(self.dtype).split(counts)
        )


class _Rows:
    """The rows of one text in a pass: `count` tokens behind the `past` ones in its cache."""

    def __init__(self, cache: KVCache, past: int, count: int, device: torch.device):
        self.cache, self.past, self.count = cache, past, count
        self.mask = _causal_mask(past, count, device)


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

    def __init__(self, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch):
        self._tensors = tensors
        self._kind = kind
        self._device = device
        self._switch = switch
        self._scratch = DequantBuffer()

    def plain(self, name: str) -> Tensor:
        return self._tensors.get(name).to(self._device, compute_dtype(self._kind))

    def linear(self, *names: str) -> nn.Module:
        """One layer from the matrices (and biases) of several, one above the other."""
        weights = [f"{name}.weight" for name in names]
        biases = [
            self._tensors.get(f"{name}.bias")
            for name in names
            if f"{name}.bias" in self._tensors.shapes
        ]
        bias = torch.cat(biases) if biases else None
        pair = self._tensors.int8(*weights) if self._kind == "int8" else None
        if pair is not None:
            layer = int8_linear(*pair, bias, self._device, self._scratch)
        else:
            weight = (
                self._tensors.get(weights[0])
                if len(weights) == 1
                else torch.cat([self._tensors.get(name) for name in weights])
            )
            layer = make_linear(weight, bias, self._kind, self._device, self._scratch)
        return AdaptedLinear(
            layer, {name: self._tensors.shapes[f"{name}.weight"][0] for name in names}, self._switch
        )


def _identity(sequence: SequenceInput) -> tuple[tuple[int, float], ...]:
    """What is the same for sequences with the same adapters."""
    return tuple((id(adapter), strength) for adapter, strength in sequence.adapters)


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
    frequencies = _frequencies(config, head_dim)
    if not bool(torch.isfinite(frequencies).all()):
        raise Mismatch(
            "config.json has no usable rotary frequencies: see rope_theta and rope_scaling"
        )
    return frequencies


def _frequencies(config: dict[str, Any], head_dim: int) -> Tensor:
    theta, scaling = _rope(config)
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling.get("rope_type") == "linear":
        return frequencies / scaling["factor"]
    if scaling.get("rope_type") != "llama3":
        return frequencies
    low, high, old = (
        scaling["low_freq_factor"],
        scaling["high_freq_factor"],
        scaling["original_max_position_embeddings"],
    )
    wavelengths = 2 * math.pi / frequencies
    blend = ((old / wavelengths - low) / (high - low)).clamp(0, 1)
    return frequencies * (blend + (1 - blend) / scaling["factor"])
