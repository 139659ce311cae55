"""MLPs in torch, and what a layer reads of its own input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Activation
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass

# Constants of xIELU (Huang & Schlag 2024), as in transformers.
_XIELU_BETA, _XIELU_EPSILON = 0.5, -1e-6


class TorchMlp:
    """[T, hidden] → [T, hidden]. gate_up: gate and up as one matrix, or up alone."""

    def __init__(self, block: blocks.Mlp, load: Loader):
        self.block = block
        self.gate_up = load.joined(block.inputs)
        self.down = load.joined([block.output])
        self._parameters = [load.float32(name) for name in block.parameters]

    def __call__(self, x: Tensor) -> Tensor:
        inner = self.gate_up(x)
        if len(self.block.inputs) == 2:
            inner = self._gated(*inner.chunk(2, dim=-1))
        else:
            inner = self._activated(inner)
        out: Tensor = self.down(inner)
        return out

    def _gated(self, gate: Tensor, up: Tensor) -> Tensor:
        if self.block.activation == "clamped_swiglu":
            limit = self.block.limit
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
            return gate * (self.block.alpha * gate).sigmoid() * (up + 1)
        gate = gate if self.block.gate_scale == 1 else gate * self.block.gate_scale
        if self.block.cutoff is not None:
            deviation = gate.std(dim=-1, keepdim=True, unbiased=False)
            gate = F.relu(gate - gate.mean(dim=-1, keepdim=True) - deviation * self.block.cutoff)
        return self._activated(gate) * up

    def _activated(self, x: Tensor) -> Tensor:
        if self.block.activation == "xielu":
            return _xielu(x, *self._parameters)
        return activated(x, self.block.activation)


class TorchLayerInput:
    """See blocks.LayerInput. [T, hidden] → [T, hidden]"""

    def __init__(self, block: blocks.LayerInput, load: Loader):
        self._block = block
        self._scale = load.plain(block.scale) if block.scale else None
        self._stream_norm = load.norm(block.stream_norm)
        self._gate, self._output = load.joined([block.gate]), load.joined([block.output])

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        assert batch.layer_inputs is not None
        x = x if self._scale is None else x * self._scale
        gate = activated(self._gate(x), self._block.activation)
        out: Tensor = self._output(gate * batch.layer_inputs[:, self._block.number])
        if self._stream_norm is None:
            return out
        batch.streams[1:] += self._stream_norm(out)
        return out.new_zeros(())


def activated(x: Tensor, kind: Activation) -> Tensor:
    match kind:
        case "silu":
            return F.silu(x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "relu2":
            return F.relu(x).square()
    raise ValueError(f"{kind} needs more than its input")


def _xielu(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    wide = x.float()
    of_positive, of_negative = F.softplus(positive), _XIELU_BETA + F.softplus(negative)
    curve = torch.expm1(wide.clamp(max=_XIELU_EPSILON)) - wide
    bent = torch.where(wide > 0, of_positive * wide * wide, of_negative * curve)
    return (bent + _XIELU_BETA * wide).to(x.dtype)
