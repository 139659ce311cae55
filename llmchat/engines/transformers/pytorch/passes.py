"""What all blocks of one pass share: the rows of each text, and their positions."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.rotary import TorchRotary, Turn


class Rows:
    """The rows of one text in a pass: `count` tokens after the `past` ones in its cache. The first
    `context` tokens of the text see each other.
    """

    def __init__(self, sequence: SequenceInput):
        self.cache: KVCache = sequence.cache
        self.ids = sequence.ids
        self.cache.begin(self.ids)
        self.context = self.cache.context
        self.past, self.count = self.cache.length, len(sequence.ids)
        self.end = self.past + self.count


class Pass:
    """One run of the model over the new rows of several texts, T in all.

    positions: int64 [T]; layer_inputs: [T, layers, width], see blocks.LayerInput; streams:
    [streams, T, hidden], see blocks.OpenStreams, the first of them as predicted for this layer;
    first_values: [T, width], of the first layer, see blocks.Rwkv7Time.
    """

    def __init__(
        self, sequences: Sequence[SequenceInput], dtype: torch.dtype, device: torch.device
    ):
        self.rows = [Rows(sequence) for sequence in sequences]
        self.counts = [row.count for row in self.rows]
        self.layer_inputs: Tensor | None = None
        self.first_values = torch.empty(0)
        self.streams = torch.empty(0)
        self._dtype = dtype
        self.positions = torch.cat(
            [torch.arange(row.past, row.end, device=device) for row in self.rows]
        )
        self._turns: dict[int, Turn] = {}

    def ids(self, device: torch.device) -> Tensor:
        """int64 [T]"""
        return torch.tensor([token for row in self.rows for token in row.ids], device=device)

    def turn(self, rotary: TorchRotary) -> Turn:
        """The rotations of the rows, computed once for all blocks that share them."""
        if id(rotary.source) not in self._turns:
            is_long = [row.cache.is_long for row in self.rows]
            positions = self._counted(rotary.source.counts)
            turn = rotary.turn(positions, is_long, self.counts, self._dtype)
            self._turns[id(rotary.source)] = turn
        return self._turns[id(rotary.source)]

    def _counted(self, counts: Literal["all", "context", "answer"]) -> Tensor:
        """int64 [T], see Rotary.counts."""
        if counts == "all":
            return self.positions
        lengths = [row.context for row in self.rows for _ in row.ids]
        last = torch.tensor(lengths, device=self.positions.device) - 1
        if counts == "context":
            return torch.minimum(self.positions, last.clamp(min=0))
        return (self.positions - last).clamp(min=0)

    def states(self, block: int) -> list[Tensor]:
        """The state of a recurrent block in each text."""
        return [row.cache.state(block) for row in self.rows]
