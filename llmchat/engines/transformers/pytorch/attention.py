"""An attention block in torch."""

import torch
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Heads, PositionScale
from llmchat.engines.transformers.pytorch.attend import Attend
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.norms import TorchNorm
from llmchat.engines.transformers.pytorch.passes import Pass, Rows
from llmchat.engines.transformers.pytorch.rotary import TorchRotary


class TorchAttention:
    """The rows of a pass, normed, [T, hidden] → [T, hidden]. number: of the block in its plan."""

    def __init__(self, block: blocks.Attention, number: int, load: Loader):
        self.block = block
        self.inputs = load.joined(block.inputs)
        self.output = load.joined([block.output])
        self.rotary = TorchRotary(block.rotary, load.device) if block.rotary else None
        self._number = number
        self._query_norm, self._key_norm, self._value_norm = (
            load.norm(norm) for norm in (block.query_norm, block.key_norm, block.value_norm)
        )
        sinks = load.float32(block.sinks) if block.sinks else None
        self._attend = Attend(block, sinks, load.device)

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        row = self.inputs(x)
        queries = self._queries(row, batch).split(batch.counts, dim=1)
        if self.block.shares is None:
            self._remember(row, batch)
        outs = [self._of_text(*pair) for pair in zip(batch.rows, queries, strict=True)]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)  # [heads, T, width]
        if self.block.gates:
            out = out * heads_of(row, self.block.gates).sigmoid()
        result: Tensor = self.output(out.transpose(0, 1).flatten(1))
        return result

    def _queries(self, row: Tensor, batch: Pass) -> Tensor:
        """[heads, T, width], ready for their scores."""
        queries = self._clipped(heads_of(row, self.block.queries))
        queries = self._placed(queries, self.block.queries, self._query_norm, batch)
        scale = self.block.position_scale
        return queries if scale is None else queries * _factors(scale, batch).to(queries.dtype)

    def _remember(self, row: Tensor, batch: Pass) -> None:
        """Append the keys and values of each text to its cache."""
        block = self.block
        keys, values = (self._clipped(heads_of(row, one)) for one in (block.keys, block.values))
        keys = self._placed(keys, block.keys, self._key_norm, batch)
        if self._value_norm:
            values = self._value_norm.of_heads(values, block.values)
        parts = zip(keys.split(batch.counts, 1), values.split(batch.counts, 1), strict=True)
        for rows, pair in zip(batch.rows, parts, strict=True):
            rows.cache.append(self._number, *pair)

    def _of_text(self, rows: Rows, queries: Tensor) -> Tensor:
        own = self._number if self.block.shares is None else self.block.shares
        return self._attend(queries, *rows.cache.held(own, rows.end))

    def _placed(self, x: Tensor, heads: Heads, norm: TorchNorm | None, batch: Pass) -> Tensor:
        """Queries or keys, [heads, T, width], normed and rotated."""
        if norm and not self.block.norms_rotated:
            x = norm.of_heads(x, heads)
        if self.rotary:
            x = batch.turn(self.rotary)(x)
        return norm.of_heads(x, heads) if norm and self.block.norms_rotated else x

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-self.block.clip, self.block.clip) if self.block.clip else x


def heads_of(row: Tensor, heads: Heads) -> Tensor:
    """Heads that lie in rows [T, width of a row], as a view [heads, T, width of a head]."""
    together = heads.together or heads.count
    groups = -(-heads.count // together)
    size = groups, together, len(row), heads.width
    stride = heads.stride_of_groups, heads.stride, row.stride(0), row.stride(1)
    view = row.as_strided(size, stride, row.storage_offset() + heads.start * row.stride(1))
    return view.flatten(0, 1)


def _factors(scale: PositionScale, batch: Pass) -> Tensor:
    """[T, 1], of the queries at each position."""
    whole = (batch.positions + scale.shift).float().div(scale.length).floor()
    return (1 + scale.beta * (1 + whole).log())[:, None]
