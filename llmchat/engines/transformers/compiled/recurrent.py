"""Makes the structures of csrc/model.h of recurrent blocks."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled import structs
from llmchat.engines.transformers.compiled.structs import LANES, TensorRefs
from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block, Heads
from llmchat.engines.transformers.families.plan import Step
from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.engines.transformers.tensors import Tensors

# Their order in the enumeration of kinds in model.h.
RECURRENT: tuple[type[Any], ...] = (
    blocks.DeltaNet,
    blocks.Mamba2,
    blocks.ShortConvolution,
    blocks.RwkvTime,
    blocks.RwkvChannel,
    blocks.Rwkv7Time,
)
# Independent sums over the rows of a state (recurrence.h: CHAINS).
_CHAINS = 4


def supports_recurrent(step: Step) -> bool:
    """Whether csrc computes exactly what a step with a recurrent block describes."""
    match step.block:
        case blocks.DeltaNet(keys=keys, values=values) as delta:
            has_vectors = keys.width % LANES == 0 and values.width % LANES == 0
            return has_vectors and (not delta.decays_by_channel or keys.count == values.count)
        case blocks.Mamba2() as mamba:
            shared = mamba.groups * mamba.state
            return mamba.width % LANES == shared % LANES == mamba.state % _CHAINS == 0
        case blocks.ShortConvolution(width=width):
            return width % LANES == 0
        case blocks.RwkvTime(width=width) | blocks.RwkvChannel(width=width):
            is_plain = step.scale == 1.0 and step.post_norm is None and step.norm is not None
            return is_plain and width % LANES == 0
        case blocks.Rwkv7Time(width=width):
            return step.norm is not None and width % LANES == 0
        case _:
            return False


class Makers(Protocol):
    """What a BlockLoader makes for all kinds of blocks."""

    def norm(self, norm: blocks.Norm | None) -> structs.Norm: ...


class RecurrentLoader:
    """Details of recurrent blocks."""

    def __init__(self, tensors: Tensors, refs: TensorRefs, makers: Makers):
        self._tensors, self._refs, self._makers = tensors, refs, makers

    def details(self, block: Block) -> tuple[ctypes.Structure, int]:
        """The details of a block, and the number of its linears that share their input."""
        makers: dict[type[Any], Callable[[Any], tuple[ctypes.Structure, int]]] = {
            blocks.DeltaNet: self._delta_net,
            blocks.Mamba2: self._mamba,
            blocks.ShortConvolution: self._short_convolution,
            blocks.RwkvTime: self._rwkv_time,
            blocks.RwkvChannel: self._rwkv_channel,
            blocks.Rwkv7Time: self._rwkv7_time,
        }
        return makers[type(block)](block)

    def _delta_net(self, block: blocks.DeltaNet) -> tuple[structs.DeltaNet, int]:
        heads = block.values.count
        parts = block.queries, block.keys, block.values, block.gates, block.beta, block.decay
        details = structs.DeltaNet(
            sum(linear.out for linear in (*block.inputs, *block.high)),
            *map(heads_struct, parts),
            self._convolution(block.convolution, None, block.kernel),
            self._floats(self._values(block.log_decay).exp(), heads),
            self._floats(self._values(block.time_bias), heads * block.decay.width),
            self._makers.norm(block.norm),
            len(block.low),
            block.decays_by_channel,
            block.gate_activation == "sigmoid",
        )
        return details, len(block.inputs)

    def _mamba(self, block: blocks.Mamba2) -> tuple[structs.Mamba, int]:
        gate, x, b, c, time = block.factors
        shared = block.groups * block.state
        sizes = torch.tensor([block.heads * block.width, shared, shared])
        factors = torch.tensor([x, b, c]).repeat_interleave(sizes)
        names = block.log_decay, block.time_bias, block.skip
        rate, bias, skip = map(self._values, names)
        details = structs.Mamba(
            block.heads, block.width, block.state, block.groups,
            self._convolution(block.convolution, block.convolution_bias, block.kernel, factors),
            *(self._floats(values, block.heads) for values in (rate.exp(), bias, skip)),
            self._makers.norm(block.norm), gate, time, *block.time_limits, block.gate_after,
        )  # fmt: skip
        return details, 1

    def _short_convolution(self, block: blocks.ShortConvolution) -> tuple[structs.Convolution, int]:
        return self._convolution(block.convolution, block.convolution_bias, block.kernel), 1

    def _rwkv_time(self, block: blocks.RwkvTime) -> tuple[structs.RwkvTime, int]:
        decay, first = self._values(block.decay).exp(), self._values(block.first)
        addresses = (self._floats(values, block.width) for values in (decay, first))
        return structs.RwkvTime(*addresses, self._mixes(block.mixes, block.width)), 1

    def _rwkv_channel(self, block: blocks.RwkvChannel) -> tuple[structs.RwkvChannel, int]:
        is_own = block.receptance is not None
        return structs.RwkvChannel(self._mixes(block.mixes, block.width, is_own)), 1

    def _rwkv7_time(self, block: blocks.Rwkv7Time) -> tuple[structs.Rwkv7Time, int]:
        width = block.heads * block.width
        names = block.key_scale, block.key_mix, block.bonus
        numbers = (self._floats(self._values(name).flatten(), width) for name in names)
        details = structs.Rwkv7Time(
            block.heads, block.width, len(block.low), self._mixes(block.mixes, width, False),
            *numbers, self._makers.norm(block.norm), block.is_first,
        )  # fmt: skip
        return details, 1

    def _convolution(
        self, name: str, bias: str | None, kernel: int, factors: Tensor | None = None
    ) -> structs.Convolution:
        weight = self._values(name)[:, 0]  # [channels, kernel]
        if factors is not None:
            weight = weight * factors[:, None]
        channels = len(weight)
        shift = None if bias is None else self._floats(self._values(bias), channels)
        address = self._floats(weight.T.contiguous(), kernel, channels)
        return structs.Convolution(address, shift, channels, kernel)

    def _mixes(self, names: Sequence[str], width: int, is_own: bool = True) -> int:
        """is_own: they are the part of a token itself, otherwise of the one before."""
        mixes = torch.stack([self._values(name).flatten() for name in names])
        return self._floats(mixes if is_own else 1 - mixes, len(names), width)

    def _values(self, name: str) -> Tensor:
        return finite(self._tensors.get(name).float(), name)

    def _floats(self, values: Tensor, *shape: int) -> int:
        return self._refs.pointer(values.contiguous(), torch.float32, shape)


def heads_struct(heads: Heads) -> structs.Heads:
    return structs.Heads(
        heads.count, heads.width, heads.start, heads.stride, heads.together or heads.count,
        heads.stride_of_groups,
    )  # fmt: skip
