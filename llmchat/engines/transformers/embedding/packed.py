"""Texts one after the other in one matrix, and the attention within each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

# T is a multiple of the second number, for few tokens (a question) of the first.
_STEPS = 8, 64


def _fillers(tokens: int) -> int:
    few, many = _STEPS
    return -tokens % (few if tokens <= many else many)


@dataclass(frozen=True)
class Packed:
    """The tokens of several texts. ids: int64 [T], all texts after each other, then fillers of 0.

    types: int64 [T], 0 for the first segment and 1 for the second; None if all are 0. lengths: the
    tokens of each text. Fillers make T one of few numbers: for each that it has seen, oneDNN keeps
    about a megabyte a layer.
    """

    ids: Tensor
    types: Tensor | None
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> "Packed":
        lengths = tuple(map(len, rows))
        flat = [token for row in rows for token in row]
        fillers = [0] * _fillers(len(flat))
        kinds = [kind for row in types for kind in row]
        return cls(
            torch.tensor(flat + fillers), torch.tensor(kinds + fillers) if types else None, lengths
        )

    @property
    def size(self) -> int:
        """Tokens without the fillers."""
        return sum(self.lengths)

    @cached_property
    def positions(self) -> Tensor:
        """int64 [T], from 0 in each text; 0 for fillers."""
        places = [torch.arange(length) for length in self.lengths]
        return torch.cat([*places, torch.zeros(len(self.ids) - self.size, dtype=torch.int64)])

    @cached_property
    def starts(self) -> Tensor:
        """int64 [n], the row of each text's first token."""
        lengths = torch.tensor(self.lengths)
        return lengths.cumsum(0) - lengths

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def is_even(self) -> bool:
        """Whether all texts have the same length, so that nothing is padded."""
        return min(self.lengths) == self.longest

    @cached_property
    def inside(self) -> Tensor:
        """bool [n, longest]: where a padded row has a token."""
        return torch.arange(self.longest) < torch.tensor(self.lengths)[:, None]

    @cached_property
    def padded_rows(self) -> Tensor:
        """int64 [n * longest], the row of each place in a padded matrix; any row for padding."""
        rows = self.starts[:, None] + torch.arange(self.longest)
        return torch.where(self.inside, rows, self.starts[:, None]).reshape(-1)

    def padded(self, x: Tensor) -> Tensor:
        """x [T, heads, width] → [n, heads, longest, width]."""
        rows = x[: self.size] if self.is_even else x[self.padded_rows]
        return rows.view(len(self.lengths), self.longest, *x.shape[1:]).transpose(1, 2)

    def flat(self, x: Tensor) -> Tensor:
        """The inverse of `padded`, with the heads joined: [T, heads * width]; 0 for fillers."""
        rows = x.transpose(1, 2).reshape(len(self.lengths) * self.longest, -1)
        rows = rows if self.is_even else rows[self.inside.reshape(-1)]
        return F.pad(rows, (0, 0, 0, len(self.ids) - self.size))

    def mask(self, *, causal: bool, window: int) -> Tensor | None:
        """bool, broadcast to [n, heads, longest, longest]: which tokens a token attends to.

        window: it sees those less than `window` places away; 0 for no limit.
        """
        places = torch.arange(self.longest)
        away = places[:, None] - places
        seen = torch.ones_like(away, dtype=torch.bool)
        if causal:
            seen &= away >= 0
        if window:
            seen &= away.abs() < window
        if self.is_even:
            return None if bool(seen.all()) else seen
        return seen & self.inside[:, None, None, :]


def attend(
    packed: Packed, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None
) -> Tensor:
    """q [T, heads, width]; k, v [T, key-value heads, width] → [T, heads * width]."""
    grouped = q.shape[1] != k.shape[1]
    mixed = F.scaled_dot_product_attention(
        packed.padded(q), packed.padded(k), packed.padded(v),
        attn_mask=mask, scale=scale, enable_gqa=grouped,
    )  # fmt: skip
    return packed.flat(mixed)
