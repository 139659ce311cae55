"""Time mixing of RWKV-7 in torch: a state that each token decays, corrects and adds to."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass
from llmchat.engines.transformers.pytorch.recurrent_rwkv import mix_rows, shifted
from llmchat.engines.transformers.pytorch.recurrent_scan import scan_channels

# The logarithm of the fastest decay.
_FASTEST = -1 / math.sqrt(math.e)


class Rwkv7Time:
    """The rows of a pass, normed, [T, width] → [T, width]; see blocks.Rwkv7Time. number: of the
    block in its plan.
    """

    def __init__(self, block: blocks.Rwkv7Time, number: int, load: Loader):
        self._block, self._number = block, number
        linears = block.receptance, block.key, block.value, block.output
        self._receptance, self._key, self._value, self._output = (
            load.joined([linear]) for linear in linears
        )
        self._low, self._high = (
            [load.joined([linear]) for linear in linears] for linears in (block.low, block.high)
        )
        self._mixes = [1 - load.float32(name).flatten() for name in block.mixes]
        names = block.key_scale, block.key_mix, block.bonus
        self._key_scale, self._key_mix, self._bonus = map(load.float32, names)
        self._norm = load.float32(block.norm.weight or ""), load.float32(block.norm.bias or "")

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        width, states = self._block.heads * self._block.width, batch.states(self._number)
        before = shifted(x, batch.counts, [state[:width] for state in states])
        r, k, v, w, a, g = (mix_rows(x, before, mix) for mix in self._mixes)
        rate = self._pair(1, a).sigmoid()
        decay = _FASTEST * self._pair(0, w, torch.tanh).sigmoid()
        receptance, key = self._receptance(r).float(), self._key(k).float()
        value = self._values(v, batch)
        unit = F.normalize(self._heads(key * self._key_scale), dim=-1)
        key = key * (1 + (rate - 1) * self._key_mix)
        parts = (receptance, decay, unit, unit * self._heads(rate), key, value)
        found = self._scan(list(map(self._heads, parts)), batch.counts, states)
        out = self._finish(found, receptance, key, value) * self._pair(2, g, torch.sigmoid)
        result: Tensor = self._output(out.to(x.dtype))
        return result

    def _pair(
        self, index: int, x: Tensor, between: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """float32"""
        low: Tensor = self._low[index](x)
        out: Tensor = self._high[index](between(low) if between else low)
        return out.float()

    def _values(self, x: Tensor, batch: Pass) -> Tensor:
        value: Tensor = self._value(x).float()
        if self._block.is_first:
            batch.first_values = value
            return value
        return value.lerp(batch.first_values, self._pair(3, x).sigmoid())

    def _heads(self, rows: Tensor) -> Tensor:
        """[T, width] → [T, heads, head width]"""
        return rows.view(len(rows), self._block.heads, self._block.width)

    def _scan(self, parts: list[Tensor], counts: list[int], states: list[Tensor]) -> Tensor:
        """[T, width]: what each text's state gives its rows."""
        heads, width = self._block.heads, self._block.width
        texts = zip(*(part.transpose(0, 1).split(counts, 1) for part in parts), strict=True)
        found = [
            scan_channels(rows, state[heads * width :].view(heads, width, width))
            for rows, state in zip(texts, states, strict=True)
        ]
        return torch.cat(found, dim=1).transpose(0, 1).flatten(1)

    def _finish(self, found: Tensor, receptance: Tensor, key: Tensor, value: Tensor) -> Tensor:
        normed = F.group_norm(found, self._block.heads, *self._norm, self._block.norm.epsilon)
        r, k, v = map(self._heads, (receptance, key, value))
        return normed + ((r * k * self._bonus).sum(-1, keepdim=True) * v).flatten(1)
