"""The forward pass of the Llama family in plain torch: the reference, and what GPUs run.

It gives the same numbers as transformers' modules, without their module tree (half of the time of a
small model) and their import (seconds of start-up). Other architectures run on modules/.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families import old_llama as llama
from llmchat.engines.transformers.families.cache_shapes import KeyValues
from llmchat.engines.transformers.live_lora import AdaptedLinear, Switch, add_live
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.linear import compute_dtype, int8_linear, make_linear
from llmchat.engines.transformers.tied_heads import HEAD
from llmchat.engines.transformers.weights import Tensors
from llmchat.settings.types import Weights


class TorchForward(Forward):
    """A loaded model: token ids in, logits out. Shapes: T new tokens, H heads, D head_dim."""

    batches = True
    exact = False

    def __init__(
        self, config: dict[str, Any], tensors: Tensors, kind: Weights, device: torch.device
    ):
        self.config = config
        self.dtype = compute_dtype(kind)
        self._device = device
        plan = llama.plan(config, tensors.shapes)
        size = plan.size
        self._heads, self._kv_heads, self._head_dim = size.heads, size.kv_heads, size.head_dim
        self._eps = plan.epsilon
        self._switch = Switch()
        load = _Loader(tensors, kind, device, self._switch)
        self._embedding = load.plain(llama.EMBEDDING)
        self._layers = [_Layer(load, llama.layer_prefix(index)) for index in range(size.layers)]
        self._norm = load.plain(llama.NORM)
        # A tied head keeps the embedding's type: an 8-bit copy would take memory, and save none.
        self._head = self._embedding if plan.has_tied_head else load.plain(HEAD)
        self._frequencies = plan.frequencies.to(device)

    def new_cache(self) -> KVCache:
        shape = KeyValues(self._kv_heads, self._head_dim, self._head_dim)
        return KVCache([shape] * len(self._layers), self.dtype, self._device)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        order = sorted(range(len(sequences)), key=lambda index: _adapter_key(sequences[index]))
        logits: list[Tensor] = [torch.empty(0)] * len(sequences)
        for adapters, indices in groupby(order, key=lambda index: sequences[index].adapters):
            group = list(indices)
            self._switch.active = adapters
            results = self._run_batch([sequences[index] for index in group])
            for index, result in zip(group, results, strict=True):
                logits[index] = result
        return logits

    def _run_batch(self, sequences: list[SequenceInput]) -> list[Tensor]:
        """As `run`, for sequences with the same adapters."""
        rows = [_Rows(sequence, self._device) for sequence in sequences]
        for row in rows:
            row.cache.reserve(row.past + row.count)
        ids = [token for sequence in sequences for token in sequence.ids]
        x = F.embedding(torch.tensor(ids, device=self._device), self._embedding)  # [T, hidden]
        cos, sin = self._rotations(rows)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(self._normed(x, layer.attention_norm))
            x = x + layer.output(self._attention(index, rows, qkv, cos, sin))
            gate, up = layer.gate_up(self._normed(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        for row in rows:
            row.cache.advance(row.ids)
        return self._logits(sequences, x)

    def _logits(self, sequences: list[SequenceInput], x: Tensor) -> list[Tensor]:
        states = x.split([len(sequence.ids) for sequence in sequences])
        wanted = [
            state if sequence.all_logits else state[-1:]
            for sequence, state in zip(sequences, states, strict=True)
        ]
        normed = self._normed(torch.cat(wanted), self._norm)
        logits = F.linear(normed, self._head)
        add_live(logits, normed, {"lm_head": len(self._head)}, self._switch)
        return list(logits.split([len(state) for state in wanted]))

    def _attention(
        self, layer: int, rows: list["_Rows"], qkv: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """Each text attends to its own cache.

        qkv: [T, (heads + 2 * kv_heads) * D] → [T, heads * D]; cos and sin: [T, D].
        """
        counts = [row.count for row in rows]
        parts = zip(rows, qkv.split(counts), cos.split(counts), sin.split(counts), strict=True)
        return torch.cat([self._attend(layer, *part) for part in parts])

    def _attend(self, layer: int, rows: "_Rows", qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads, kv_heads, dim = self._heads, self._kv_heads, self._head_dim
        parts = qkv.view(rows.count, heads + 2 * kv_heads, dim).transpose(0, 1)  # [H, T, D]
        rotated = _rotate(parts[: heads + kv_heads], cos, sin)
        keys, values = rows.cache.append(layer, rotated[heads:], parts[heads + kv_heads :])
        queries = rotated[:heads]
        if rows.count == 1:
            # One query a head: the heads that share keys take the place of positions, so that the
            # keys need not be repeated.
            grouped = queries.reshape(1, kv_heads, heads // kv_heads, dim)
            out = F.scaled_dot_product_attention(grouped, keys[None], values[None])
            return out.reshape(1, -1)
        out = F.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=rows.mask,
            is_causal=rows.mask is None,
            enable_gqa=heads != kv_heads,
        )
        return out[0].transpose(0, 1).reshape(rows.count, -1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self._eps)

    def _rotations(self, rows: list["_Rows"]) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions of the rows, [T, D]."""
        positions = torch.cat([row.positions for row in rows])
        angles = torch.outer(positions, self._frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


class _Rows:
    """The rows of one text in a pass: `count` tokens after the `past` ones in its cache."""

    def __init__(self, sequence: SequenceInput, device: torch.device):
        self.cache: KVCache = sequence.cache
        self.past, self.ids, self.count = self.cache.length, sequence.ids, len(sequence.ids)
        self.mask = _causal_mask(self.past, self.count, device)
        self.positions = torch.arange(
            self.past, self.past + self.count, device=device, dtype=torch.float32
        )


class _Layer:
    """Weights of one layer. q, k, v are one matrix, and so are gate and up.

    Row-wise quantisation is the same for rows that are joined.
    """

    def __init__(self, load: "_Loader", prefix: str):
        q, k, v, output, gate, up, down = (f"{prefix}{name}" for name in llama.LINEARS)
        self.attention_norm = load.plain(f"{prefix}{llama.ATTENTION_NORM}")
        self.qkv = load.linear(q, k, v)
        self.output = load.linear(output)
        self.mlp_norm = load.plain(f"{prefix}{llama.MLP_NORM}")
        self.gate_up = load.linear(gate, up)
        self.down = load.linear(down)


class _Loader:
    """Brings each tensor into its final form before the next one is read."""

    def __init__(self, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch):
        self._tensors = tensors
        self._kind = kind
        self._device = device
        self._switch = switch
        self._buffer = DequantBuffer()

    def plain(self, name: str) -> Tensor:
        return self._tensors.get(name).to(self._device, compute_dtype(self._kind))

    def linear(self, *names: str) -> nn.Module:
        """One layer of the matrices (and biases) of several, concatenated along their outputs."""
        weights = [f"{name}.weight" for name in names]
        outputs = {name: self._tensors.shapes[f"{name}.weight"][0] for name in names}
        bias = self._bias(names)
        pair = self._tensors.int8(*weights) if self._kind == "int8" else None
        if pair is not None:
            layer = int8_linear(*pair, bias, self._device, self._buffer)
        else:
            weight = _joined([self._tensors.get(name) for name in weights])
            layer = make_linear(weight, bias, self._kind, self._device, self._buffer)
        return AdaptedLinear(layer, outputs, self._switch)

    def _bias(self, names: Sequence[str]) -> Tensor | None:
        biases = [f"{name}.bias" for name in names if f"{name}.bias" in self._tensors.shapes]
        return _joined([self._tensors.get(name) for name in biases]) if biases else None


def _joined(parts: list[Tensor]) -> Tensor:
    """Without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _adapter_key(sequence: SequenceInput) -> tuple[tuple[int, float], ...]:
    """The same for sequences with the same adapters, and sortable."""
    return tuple((id(adapter), strength) for adapter, strength in sequence.adapters)


def _causal_mask(past: int, count: int, device: torch.device) -> Tensor | None:
    """[count, past + count], true where a position may look; None where it is plainly causal."""
    if past == 0 or count == 1:
        return None
    return torch.ones(count, past + count, dtype=torch.bool, device=device).tril(past)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) in the half-split order of Hugging Face. x: [H, T, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
