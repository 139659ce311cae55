"""An attention block in torch."""

from dataclasses import replace

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
        second = block.second_rotary
        self._second_rotary = TorchRotary(second, load.device) if second else None
        self._number = number
        self._query_norm, self._key_norm, self._value_norm = (
            load.norm(norm) for norm in (block.query_norm, block.key_norm, block.value_norm)
        )
        self._both = _together(block)
        sinks = load.float32(block.sinks) if block.sinks else None
        bias = block.distance_bias
        distances = bias.table(load.float32(bias.weight)) if bias else None
        self._attend = Attend(block, sinks, load.device, distances)

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        row = self.inputs(x)
        queries, keys = self._queries_and_keys(row, batch)
        held = (
            [self._seen(rows) for rows in batch.rows]
            if keys is None
            else (self._with_new(row, keys, batch))
        )
        parts = zip(queries.split(batch.counts, dim=1), held, batch.rows, strict=True)
        outs = [self._attend(of_text, *pair, rows.context) for of_text, pair, rows in parts]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)  # [heads, T, width]
        if self.block.gates:
            out = out * heads_of(row, self.block.gates).sigmoid()
        result: Tensor = self.output(out.transpose(0, 1).flatten(1))
        return result

    def _queries_and_keys(self, row: Tensor, batch: Pass) -> tuple[Tensor, Tensor | None]:
        """[heads, T, width], ready for their scores; no keys if another block has them."""
        block = self.block
        if self._both:
            both = self._placed(heads_of(row, self._both), self._both, None, batch)
            return both[: block.queries.count], both[block.queries.count :]
        queries = self._clipped(heads_of(row, block.queries))
        queries = self._placed(queries, block.queries, self._query_norm, batch)
        if block.position_scale:
            queries = queries * _factors(block.position_scale, batch).to(queries.dtype)
        if block.shares is not None:
            return queries, None
        keys = self._clipped(heads_of(row, block.keys))
        return queries, self._placed(keys, block.keys, self._key_norm, batch)

    def _with_new(self, row: Tensor, keys: Tensor, batch: Pass) -> list[tuple[Tensor, Tensor]]:
        """All keys and values of each text, of which those of the rows are new."""
        values = self._clipped(heads_of(row, self.block.values))
        if self._value_norm:
            values = self._value_norm.of_heads(values, self.block.values)
        parts = zip(keys.split(batch.counts, 1), values.split(batch.counts, 1), strict=True)
        if self.block.sees == "all":
            return list(parts)
        return [
            rows.cache.append(self._number, *pair)
            for rows, pair in zip(batch.rows, parts, strict=True)
        ]

    def _seen(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The keys and values of another block."""
        assert self.block.shares is not None
        if self.block.sees == "memory":
            return rows.cache.remembered(self.block.shares)
        return rows.cache.held(self.block.shares, rows.end)

    def _placed(self, x: Tensor, heads: Heads, norm: TorchNorm | None, batch: Pass) -> Tensor:
        """Queries or keys, [heads, T, width], normed and rotated."""
        if norm and not self.block.norms_rotated:
            x = norm.of_heads(x, heads)
        if self.rotary:
            x = batch.turn(self.rotary)(x)
        if self._second_rotary:
            x = batch.turn(self._second_rotary)(x)
        return norm.of_heads(x, heads) if norm and self.block.norms_rotated else x

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-self.block.clip, self.block.clip) if self.block.clip else x


class TorchMemory:
    """The rows of a pass of an encoder, normed, [T, hidden] → zeros [T, 1]; see blocks.Memory."""

    def __init__(self, block: blocks.Memory, number: int, load: Loader):
        self._block = block
        self._number = number
        self._inputs = load.joined(block.inputs)

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        row = self._inputs(x)
        sides = (heads_of(row, heads) for heads in (self._block.keys, self._block.values))
        parts = zip(*(side.split(batch.counts, dim=1) for side in sides), strict=True)
        for rows, pair in zip(batch.rows, parts, strict=True):
            rows.cache.append(self._number, *pair)
        return torch.zeros_like(x[:, :1])


def heads_of(row: Tensor, heads: Heads) -> Tensor:
    """Heads that lie in contiguous rows [T, width of a row], as [heads, T, width of a head]."""
    first = row.storage_offset() + heads.start
    if not heads.together:
        return row.as_strided(
            (heads.count, len(row), heads.width), (heads.stride, row.stride(0), 1), first
        )
    size = heads.count // heads.together, heads.together, len(row), heads.width
    stride = heads.stride_of_groups, heads.stride, row.stride(0), 1
    return row.as_strided(size, stride, first).flatten(0, 1)


def _together(block: blocks.Attention) -> Heads | None:
    """Queries and keys as heads of one kind, where they are rotated alike and nothing else."""
    queries, keys = block.queries, block.keys
    has_more = block.query_norm or block.key_norm or block.position_scale or block.clip
    follow = keys.start == queries.start + queries.count * queries.stride
    alike = (queries.width, queries.stride) == (keys.width, keys.stride)
    if has_more or block.shares is not None or not (follow and alike):
        return None
    if queries.together or keys.together:
        return None
    return replace(queries, count=queries.count + keys.count)


def _factors(scale: PositionScale, batch: Pass) -> Tensor:
    """[T, 1], of the queries at each position."""
    whole = (batch.positions + scale.shift).float().div(scale.length).floor()
    return (1 + scale.beta * (1 + whole).log())[:, None]
