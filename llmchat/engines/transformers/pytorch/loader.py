"""Brings the tensors of a plan into their final form, each before the next one is read."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from llmchat.engines.transformers.families.blocks import Linear, Norm
from llmchat.engines.transformers.live_lora import AdaptedLinear, Part, Switch
from llmchat.engines.transformers.pytorch.grouped import GroupedLinear
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer
from llmchat.engines.transformers.pytorch.linear import compute_dtype, int8_linear, make_linear
from llmchat.engines.transformers.pytorch.norms import TorchNorm
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import Weights


class Loader:
    """The tensors of a checkpoint under the names of its plan, as `kind` on `device`."""

    def __init__(self, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch):
        self.dtype = compute_dtype(kind)
        self.device = device
        self.switch = switch
        self._tensors = tensors
        self._kind = kind
        self._buffer = DequantBuffer()

    def plain(self, name: str) -> Tensor:
        """A tensor in the type of activations."""
        return self._tensors.get(name).to(self.device, self.dtype)

    def float32(self, name: str) -> Tensor:
        return self._tensors.get(name).to(self.device, torch.float32)

    def stored(self, name: str) -> Tensor:
        """A tensor in the type of its file, which may be mapped."""
        return self._tensors.get(name).to(self.device)

    def norm(self, norm: Norm | None) -> TorchNorm | None:
        if norm is None:
            return None
        weight, bias = (
            None if name is None else self.plain(name).float() for name in (norm.weight, norm.bias)
        )
        return TorchNorm(norm, weight, bias, self.dtype)

    def bias(self, linears: Sequence[Linear]) -> Tensor | None:
        """The biases of linears side by side, in the type of their file; None without any."""
        parts = [
            _rows(self._tensors.get(linear.bias), linear)
            for linear in linears
            if linear.bias in self._tensors.shapes
        ]
        return _side_by_side(parts) if parts else None

    def joined(self, linears: Sequence[Linear]) -> AdaptedLinear:
        """One layer whose outputs are those of all of them, side by side.

        Row-wise quantisation is the same for rows that are joined.
        """
        pieces = _merged(linears)
        parts = [Part(piece.module, piece.out, piece.first) for piece in pieces]
        return AdaptedLinear(self.layer(pieces), parts, self.switch)

    def layer(self, pieces: Sequence[Linear]) -> nn.Module:
        """The layer that computes the outputs of these, side by side."""
        bias = self.bias(pieces)
        if self._kind == "int4" and (parts := self._grouped(pieces)):
            bias = None if bias is None else bias.to(self.device, self.dtype)
            return GroupedLinear(parts, bias, self.device)
        pair = self._int8(pieces) if self._kind in ("int8", "int4") else None
        if pair is not None:
            return int8_linear(*pair, bias, self.device, self._buffer)
        return make_linear(self.weight(pieces), bias, self._kind, self.device, self._buffer)

    def weight(self, pieces: Sequence[Linear]) -> Tensor:
        """The weights of linears, one below the other, in the type of their file."""
        return _side_by_side([_rows(self._tensors.get(one.weight), one) for one in pieces])

    def _grouped(self, pieces: Sequence[Linear]) -> list[GroupedWeight]:
        """Their weights in groups; none unless all of them are."""
        found = [self._tensors.grouped(piece.weight) for piece in pieces]
        if None in found:
            return []
        return [
            one.rows(piece.first, piece.out)
            for one, piece in zip(found, pieces, strict=True)
            if one is not None
        ]

    def _int8(self, pieces: Sequence[Linear]) -> tuple[Tensor, Tensor] | None:
        """Their weights, if they are 8-bit already: in place where they are adjacent in a file."""
        if all(map(_is_whole, pieces)):
            return self._tensors.int8(*(piece.weight for piece in pieces))
        pairs = [self._tensors.int8(piece.weight) for piece in pieces]
        found = [pair for pair in pairs if pair is not None]
        if len(found) < len(pieces):
            return None
        sides = [
            [_rows(side, piece) for side, piece in zip(kind, pieces, strict=True)]
            for kind in zip(*found, strict=True)
        ]
        return _side_by_side(sides[0]), _side_by_side(sides[1])


def _merged(linears: Sequence[Linear]) -> list[Linear]:
    """Parts of one weight that follow each other, as one part."""
    pieces: list[Linear] = []
    for linear in linears:
        last = pieces[-1] if pieces else None
        if last and last.module == linear.module and last.first + last.out == linear.first:
            pieces[-1] = replace(last, out=last.out + linear.out)
        else:
            pieces.append(linear)
    return pieces


def _is_whole(piece: Linear) -> bool:
    return piece.out == piece.shape[0]


def _rows(tensor: Tensor, piece: Linear) -> Tensor:
    return tensor if _is_whole(piece) else tensor[piece.first : piece.first + piece.out]


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
