"""Softmax attention of the new rows of one text to its keys and values, with all its variants."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Attention

# Queries whose scores are in memory at once, where they are: [heads, queries, keys].
_QUERIES = 256


class Attend:
    """[H, T, key width] queries, [K, S, key width] keys, [K, S, value width] values → [H, T, value
    width]. The T rows are the last of the S positions, unless the block sees all of them; H / K
    heads share keys. distances: the table of the block's distance bias. context: see Rows.
    """

    def __init__(
        self,
        block: Attention,
        sinks: Tensor | None,
        device: torch.device,
        distances: Tensor | None = None,
    ):
        self._block = block
        self._scale = block.scale
        self._sinks = sinks
        self._distances = distances
        self._is_causal = block.sees in ("before", "context")
        self._slopes = None if block.slopes is None else block.slopes.to(device, torch.float32)

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, context: int = 0) -> Tensor:
        count, end = queries.shape[1], keys.shape[1]
        past = end - count if self._is_causal else 0
        if self._block.sees == "context" and past < context:
            return self._with_context(queries, keys, values, context)
        if count > 1 and self._is_plain(end):
            return self._all_before(queries, keys, values)
        parts = []
        for start in range(0, count, _QUERIES):
            stop = min(start + _QUERIES, count)
            first = past + start
            seen = slice(self._first_seen(first), past + stop if self._is_causal else end)
            sides = queries[:, start:stop], keys[:, seen], values[:, seen]
            parts.append(self._some(*sides, first, seen))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _with_context(self, queries: Tensor, keys: Tensor, values: Tensor, context: int) -> Tensor:
        """A text that is read from its first token on: the context sees all of itself."""
        seen = torch.ones(queries.shape[1], keys.shape[1], dtype=torch.bool, device=keys.device)
        seen = seen.tril_()
        seen[:, :context] = True
        parts = queries[None], keys[None], values[None]
        out: Tensor = F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=self._scale)[0]
        return out

    def _is_plain(self, end: int) -> bool:
        """Whether each of `end` positions sees all before it, by the usual scores."""
        block = self._block
        narrow = 0 < block.window < end or 0 < block.chunk < end
        biased = block.slopes is not None or self._distances is not None
        return self._is_causal and not (narrow or block.softcap or block.sinks or biased)

    def _first_seen(self, position: int) -> int:
        window, chunk = self._block.window, self._block.chunk
        first = position // chunk * chunk if chunk else 0
        return max(first, position + 1 - window) if window else first

    def _all_before(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        count, past = queries.shape[1], keys.shape[1] - queries.shape[1]
        mask = None
        if past:
            mask = torch.ones(count, past + count, dtype=torch.bool, device=keys.device).tril(past)
        out: Tensor = F.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=self._scale,
            enable_gqa=len(queries) != len(keys),
        )[0]
        return out

    def _some(
        self, queries: Tensor, keys: Tensor, values: Tensor, first: int, seen: slice
    ) -> Tensor:
        """A few rows, the first at position `first`, to the positions `seen`."""
        heads, count, _ = queries.shape
        bias = self._bias(first, count, seen, keys.device)
        grouped = queries.reshape(len(keys), -1, queries.shape[-1])  # [K, H / K * T, width]
        if bias is not None:
            bias = bias.expand(heads, -1, -1).reshape(len(keys), grouped.shape[1], -1)
        if self._block.softcap or self._sinks is not None:
            out = self._by_scores(grouped, keys, values, bias)
        else:
            mask = None if bias is None else bias.to(queries.dtype)[None]
            out = F.scaled_dot_product_attention(
                grouped[None], keys[None], values[None], attn_mask=mask, scale=self._scale
            )[0]
        return out.reshape(heads, count, -1)

    def _bias(self, first: int, count: int, seen: slice, device: torch.device) -> Tensor | None:
        """What is added to scores, float32 [heads or 1, count, keys]: -inf for what is not seen."""
        has_bias = self._slopes is not None or self._distances is not None
        if not has_bias and (count == 1 or not self._is_causal):
            return None
        mine = torch.arange(first, first + count, device=device)[:, None]
        theirs = torch.arange(seen.start, seen.stop, device=device)
        visible = theirs <= mine if self._is_causal else theirs >= 0
        if self._block.window:
            visible &= theirs > mine - self._block.window
        if self._block.chunk:
            visible &= theirs // self._block.chunk == mine // self._block.chunk
        bias = torch.zeros(1, device=device)
        if self._slopes is not None:
            bias = self._slopes[:, None, None] * (theirs - mine)
        if self._distances is not None:
            reach = self._distances.shape[1] // 2
            bias = self._distances[:, (theirs - mine).clamp(-reach, reach) + reach]
        return torch.where(visible, bias, -torch.inf).view(-1, count, len(theirs))

    def _by_scores(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
    ) -> Tensor:
        scores = (queries @ keys.mT).float() * self._scale  # [K, H / K * T, S]
        if self._block.softcap:
            scores = self._block.softcap * (scores / self._block.softcap).tanh()
        if bias is not None:
            scores = scores + bias
        if self._sinks is not None:
            own = self._sinks.view(len(keys), -1, 1)  # [K, H / K, 1]
            rows = scores.shape[1] // own.shape[1]
            scores = torch.cat((scores, own.repeat_interleave(rows, dim=1)), dim=-1)
        weights = scores.softmax(dim=-1)[..., : keys.shape[1]]
        return weights.to(values.dtype) @ values
