"""Where the numbers of a tensor of a plan are in a GGUF file, and what llama.cpp's converter did to
them: for reading files and for writing them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# The order of so many rows or columns: int64.
Order = Callable[[int], Tensor]


@dataclass(frozen=True)
class Rows:
    """Row r here is row order[r] there."""

    order: Order

    def read(self, tensor: Tensor) -> Tensor:
        return _chosen(tensor, 0, self.order(len(tensor)))

    def write(self, tensor: Tensor) -> Tensor:
        return _chosen(tensor, 0, torch.argsort(self.order(len(tensor))))


@dataclass(frozen=True)
class Columns:
    """Column c here is column order[c] there."""

    order: Order

    def read(self, tensor: Tensor) -> Tensor:
        return _chosen(tensor, -1, self.order(tensor.shape[-1]))

    def write(self, tensor: Tensor) -> Tensor:
        return _chosen(tensor, -1, torch.argsort(self.order(tensor.shape[-1])))


def _chosen(tensor: Tensor, dimension: int, order: Tensor) -> Tensor:
    if tensor.shape[dimension] != len(order):
        raise ValueError("it has another size")
    return tensor.index_select(dimension, order.to(tensor.device))


class Step(NamedTuple):
    """What a converter does, and how it is undone: each makes a tensor of another."""

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


Change = Rows | Columns | Step


def shaped(here: Sequence[int], there: Sequence[int]) -> Step:
    """The same numbers in another shape; one size of each can be -1."""
    return Step(lambda tensor: tensor.reshape(here), lambda tensor: tensor.reshape(there))


# Norms that have the 1 of 1 + weight in a file.
SHIFTED = Step(lambda tensor: tensor - 1.0, lambda tensor: tensor.float() + 1.0)
# Rates of decay: a file has -exp(A_log).
RATES = Step(lambda tensor: torch.log(-tensor), lambda tensor: -torch.exp(tensor.float()))
# A kernel of a convolution [channels, 1, kernel] without its dimension of 1.
KERNEL = Step(
    lambda tensor: tensor.reshape(-1, 1, tensor.shape[-1]), lambda tensor: tensor.squeeze(1)
)
# Numbers that are a column there.
COLUMN = shaped((-1,), (-1, 1))


@dataclass(frozen=True)
class Piece:
    """A tensor of a file, or a part of it. index: of a matrix in a stack. first, count: the rows
    of it; 0: all. changes: see Stored. rows: how many it becomes; 0: all of the tensor.
    """

    name: str
    index: int | None = None
    first: int = 0
    count: int = 0
    changes: tuple[Change, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Stored:
    """A tensor of a plan: its pieces, one behind the other, and then the changes that undo what the
    converter did, in this order.
    """

    pieces: tuple[Piece, ...]
    changes: tuple[Change, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is one tensor, or one matrix of a stack, as it is."""
        return len(self.pieces) == 1 and not self.changes and not self.pieces[0].changes

    @property
    def keeps_rows(self) -> bool:
        """Whether whole rows and whole columns move at most, so that nothing is dequantised."""
        moves = all(isinstance(change, (Rows, Columns)) for change in self.changes)
        return moves and not any(piece.changes for piece in self.pieces)

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        """The tensor, of one of each piece. A tensor on meta gives the shape."""
        pairs = zip(self.pieces, parts, strict=True)
        changed = [_all(piece.changes, part) for piece, part in pairs]
        return _all(self.changes, changed[0] if len(changed) == 1 else torch.cat(changed))

    def written(self, tensor: Tensor) -> list[Tensor]:
        """What a file has for each piece."""
        for change in reversed(self.changes):
            tensor = change.write(tensor)
        parts = tensor.split([piece.rows or len(tensor) for piece in self.pieces])
        found = []
        for piece, part in zip(self.pieces, parts, strict=True):
            for change in reversed(piece.changes):
                part = change.write(part)
            found.append(part)
        return found


def _all(changes: Iterable[Change], tensor: Tensor) -> Tensor:
    for change in changes:
        tensor = change.read(tensor)
    return tensor


def interleaved(heads: int) -> Rows:
    """Rotary pairs that are halves of a head here and neighbours there."""
    return Rows(lambda rows: torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten())


def tiled(groups: int, together: int, width: int, first: int = 0) -> Order:
    """The order of heads of `width` numbers, of which `together` share one of `groups` heads of
    keys: side by side here; the first ones of all groups, then the second ones, there. first: rows
    before them, which stay.
    """

    def order(count: int) -> Tensor:
        heads = torch.arange(groups * together * width).view(together, groups, width)
        return torch.cat([torch.arange(first), first + heads.transpose(0, 1).flatten()])

    return order
