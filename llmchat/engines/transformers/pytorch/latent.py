"""Multi-head latent attention in torch. The cache holds keys and values of every head."""

from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Heads
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

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        self._remember(x, batch)
        queries = self._of_queries(x, batch).split(batch.counts, dim=1)
        outs = [
            self._attend(query, *rows.cache.held(self._number, rows.end))
            for rows, query in zip(batch.rows, queries, strict=True)
        ]
        out = torch.cat(outs, dim=1)  # [heads, T, value width]
        result: Tensor = self._output(out.transpose(0, 1).flatten(1))
        return result

    def _of_queries(self, x: Tensor, batch: Pass) -> Tensor:
        """[heads, T, plain + rotary width]"""
        first, *second = self._queries
        row: Tensor = first(x)
        if self._query_norm:
            row = second[0](self._query_norm(row))
        heads = row.unflatten(1, (self.block.heads, -1)).transpose(0, 1)
        return batch.turn(self._rotary)(heads)

    def _remember(self, x: Tensor, batch: Pass) -> None:
        """Append the keys and values of each text to its cache."""
        latent, turning = self._down(x).tensor_split([self.block.latent], dim=-1)
        normed: Any = self._latent_norm
        heads = self._up(normed(latent)).unflatten(1, (self.block.heads, -1)).transpose(0, 1)
        plain, values = heads.tensor_split([self.block.plain], dim=-1)
        shared = turning.expand(self.block.heads, -1, -1)
        keys = batch.turn(self._rotary)(torch.cat((plain, shared), dim=-1))
        parts = zip(keys.split(batch.counts, 1), values.split(batch.counts, 1), strict=True)
        for rows, pair in zip(batch.rows, parts, strict=True):
            rows.cache.append(self._number, *pair)


def _scores(block: blocks.LatentAttention) -> blocks.Attention:
    """An attention with the same scores, once keys and values are there."""
    width = block.plain + block.rotary.width
    keys, values = (Heads(block.heads, one, 0, one) for one in (width, block.value_width))
    return blocks.Attention((), block.output, keys, keys, values, block.scale)
