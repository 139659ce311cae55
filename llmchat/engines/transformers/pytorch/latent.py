"""Multi-head latent attention in torch. The cache holds the latent numbers, not keys and values.

A head's plain part of a key is a product of its rows of `up` with the latent numbers, so its
queries take these rows instead ("absorbed"); and it sums latent numbers before their product with
its rows for values. All heads then share one head of keys.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Heads
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.pytorch.attend import Attend
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass
from llmchat.engines.transformers.pytorch.rotary import TorchRotary


class TorchLatentAttention:
    """The rows of a pass, normed, [T, hidden] → [T, hidden]. number: of the block in its plan."""

    def __init__(self, block: blocks.LatentAttention, number: int, load: Loader):
        self.block = block
        self._number = number
        self._queries = [load.joined([linear]) for linear in block.queries]
        self._query_norm, self._latent_norm = (
            load.norm(block.query_norm),
            load.norm(block.latent_norm),
        )
        self._down = load.joined([block.down, block.turning])
        self._up = load.joined([block.up])
        self._output = load.joined([block.output])
        self._rotary = TorchRotary(block.rotary, load.device)
        self._attend = Attend(_scores(block), None, load.device)
        self._switch = load.switch
        self._rows: tuple[LiveAdapters, Tensor] | None = None

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        self._remember(x, batch)
        rows = self._rows_of_heads(x)
        queries = self._of_queries(x, rows[:, : self.block.plain], batch).split(batch.counts, dim=1)
        outs = [
            self._attend(query, *row.cache.held(self._number, row.end))
            for row, query in zip(batch.rows, queries, strict=True)
        ]
        latent = torch.cat(outs, dim=1)  # [heads, T, latent]
        out = latent @ rows[:, self.block.plain :].mT
        result: Tensor = self._output(out.transpose(0, 1).flatten(1))
        return result

    def _rows_of_heads(self, x: Tensor) -> Tensor:
        """[heads, plain + value width, latent]: the weights of `up` with the active adapters."""
        if self._rows is None or self._rows[0] != self._switch.active:
            units = torch.eye(self.block.latent, dtype=x.dtype, device=x.device)
            rows = self._up(units).T.contiguous()
            self._rows = self._switch.active, rows.unflatten(0, (self.block.heads, -1))
        return self._rows[1]

    def _of_queries(self, x: Tensor, rows: Tensor, batch: Pass) -> Tensor:
        """[heads, T, latent + rotary width]. rows: [heads, plain, latent]"""
        first, *second = self._queries
        row: Tensor = first(x)
        if self._query_norm:
            row = second[0](self._query_norm(row))
        heads = batch.turn(self._rotary)(row.unflatten(1, (self.block.heads, -1)).transpose(0, 1))
        plain, turned = heads.tensor_split([self.block.plain], dim=-1)
        return torch.cat((plain @ rows, turned), dim=-1)

    def _remember(self, x: Tensor, batch: Pass) -> None:
        """Append the latent numbers and the rotary part of keys of each text to its cache."""
        latent, turning = self._down(x).tensor_split([self.block.latent], dim=-1)
        normed: Any = self._latent_norm
        values = normed(latent)[None]
        turned = replace(batch.turn(self._rotary), first=0)(turning[None])
        keys = torch.cat((values, turned), dim=-1)
        parts = zip(keys.split(batch.counts, 1), values.split(batch.counts, 1), strict=True)
        for rows, pair in zip(batch.rows, parts, strict=True):
            rows.cache.append(self._number, *pair)


def _scores(block: blocks.LatentAttention) -> blocks.Attention:
    """An attention with the same scores, once keys and values are there."""
    width = block.latent + block.rotary.width
    queries, keys = (Heads(count, width, 0, width) for count in (block.heads, 1))
    values = Heads(1, block.latent, 0, width)
    return blocks.Attention((), block.output, queries, keys, values, block.scale)
