"""RWKV-4 in torch, and the channel mixing of RWKV-7: each token is mixed with the one before, and
weighed with all before it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.pytorch.recurrent_mixers import Loader
from llmchat.engines.transformers.pytorch.recurrent_scan import weigh


class RwkvTime:
    """See recurrent_mixers.Mixer for the call."""

    def __init__(self, block: blocks.RwkvTime, load: Loader):
        linears = block.key, block.value, block.receptance, block.output
        self._key, self._value, self._receptance, self._output = (
            load.joined([linear]) for linear in linears
        )
        self._width = block.width
        self._mixes = [load.float32(name).flatten() for name in block.mixes]
        self._decay = load.float32(block.decay).exp()
        self._first = load.float32(block.first)

    def __call__(self, x: Tensor, counts: Sequence[int], states: Sequence[Tensor]) -> Tensor:
        before = shifted(x, counts, [state[: self._width] for state in states])
        mixed = [mix_rows(x, before, mix) for mix in self._mixes]
        key, value = self._key(mixed[0]).float(), self._value(mixed[1]).float()
        parts = zip(key.split(list(counts)), value.split(list(counts)), states, strict=True)
        weighed = [
            weigh(k, v, self._first, self._decay, state[self._width :].view(3, -1))
            for k, v, state in parts
        ]
        receptance = self._receptance(mixed[2]).float().sigmoid()
        out: Tensor = self._output((receptance * torch.cat(weighed)).to(x.dtype))
        return out


class RwkvChannel:
    def __init__(self, block: blocks.RwkvChannel, load: Loader):
        self._key, self._value = (load.joined([linear]) for linear in (block.key, block.value))
        self._receptance = load.joined([block.receptance]) if block.receptance else None
        mixes = [load.float32(name).flatten() for name in block.mixes]
        self._mixes = mixes if block.receptance else [1 - mix for mix in mixes]

    def __call__(self, x: Tensor, counts: Sequence[int], states: Sequence[Tensor]) -> Tensor:
        before = shifted(x, counts, states)
        key, *others = (mix_rows(x, before, mix) for mix in self._mixes)
        value: Tensor = self._value(F.relu(self._key(key)).square())
        return self._receptance(*others).sigmoid() * value if self._receptance else value


def shifted(x: Tensor, counts: Sequence[int], last: Sequence[Tensor]) -> Tensor:
    """The row before each one. last: of each text, before its rows; becomes its last row."""
    parts = []
    for rows, before in zip(x.float().split(list(counts)), last, strict=True):
        parts.append(torch.cat((before[None], rows[:-1])))
        before.copy_(rows[-1])
    return torch.cat(parts)


def mix_rows(x: Tensor, before: Tensor, mix: Tensor) -> Tensor:
    return (x.float() * mix + before * (1 - mix)).to(x.dtype)
