"""Makes the matrices of csrc/model.h of the linears of a plan: in the groups in which they are
stored, or in 8 bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled.grouped import grouped_matrix, rows_of
from llmchat.engines.transformers.compiled.structs import Matrix, TensorRefs
from llmchat.engines.transformers.families.blocks import Linear
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.pytorch.int8 import finite, quantise_rows
from llmchat.engines.transformers.quantised.packed import kind_of, pack
from llmchat.engines.transformers.quantised.types import PackedWeight
from llmchat.engines.transformers.tensors import Tensors


class MatrixLoader:
    """Matrices of one model. Its tensors are read one after the other."""

    def __init__(self, tensors: Tensors, refs: TensorRefs):
        self._tensors, self._refs = tensors, refs
        self._whole: tuple[str, tuple[Tensor, Tensor]] | None = None
        self._last: tuple[str, PackedWeight | None] | None = None

    def of_block(self, linears: Sequence[Linear], inputs: int, reorders: bool) -> list[Matrix]:
        """The matrices of a block, of which the first `inputs` read the same.

        reorders: csrc can bring what they read into the order of their columns, if they have the
        same. Other matrices with an order are in 8 bits.
        """
        found = [self._packed_rows(linear) for linear in linears]
        has_one = _same([None if one is None else one.order for one in found[:inputs]])
        kept = [
            one if one is None or one.order is None or (reorders and (has_one or at >= inputs))
            else None
            for at, one in enumerate(found)
        ]  # fmt: skip
        return [
            self._in_8_bits(linear) if one is None else self._grouped(linear, one)
            for linear, one in zip(linears, kept, strict=True)
        ]

    def matrix(self, linear: Linear) -> Matrix:
        return self.of_block([linear], 0, False)[0]

    def int8(self, linear: Linear) -> tuple[Tensor, Tensor]:
        """The whole weight and the scales of its rows."""
        pair = self._tensors.int8(linear.weight)
        return pair or quantise_rows(self._tensors.get(linear.weight), linear.weight)

    def head(self, plan: Plan) -> Matrix:
        """The output head as it is stored, or in 8 bits, which halves the largest matrix of a small
        model.
        """
        tensors, shape = self._tensors, (plan.vocabulary, plan.hidden)
        name = plan.embedding.weight if plan.head.is_tied else plan.head.linear.weight
        bias = plan.head.linear.bias
        shift = tensors.get(bias) if bias in tensors.shapes else None
        packed = self._packed(name)
        if packed is not None and packed.order is None:
            return grouped_matrix(self._refs, packed, shift, shape=shape, name="lm_head")
        pair = tensors.head_int8() or quantise_rows(tensors.get(name), name)
        return self._refs.matrix(*pair, shift, shape=shape, name="lm_head")

    def tokens(self, plan: Plan) -> Matrix:
        """The embedding as it is stored in groups; a Matrix of nothing where it is not."""
        packed = self._packed(plan.embedding.weight)
        if packed is None or packed.order is not None:
            return Matrix()
        shape = plan.vocabulary, plan.hidden
        return grouped_matrix(self._refs, packed, shape=shape, name=plan.embedding.weight)

    def embedding(self, plan: Plan) -> int:
        """bfloat16. A mapped one of that type is not checked for NaN: that would read gigabytes.

        An invalid row makes its logits NaN.
        """
        name = plan.embedding.weight
        embedding = self._tensors.get(name)
        if embedding.dtype != torch.bfloat16:
            embedding = finite(embedding.to(torch.bfloat16), name)
        shape = plan.vocabulary, plan.hidden
        return self._refs.pointer(embedding.contiguous(), torch.bfloat16, shape, name)

    def _in_8_bits(self, linear: Linear) -> Matrix:
        """Rows of a weight. Parts of one weight are quantised once."""
        name = linear.module
        if self._whole is None or self._whole[0] != name:
            self._whole = name, self.int8(linear)
        weight, scb = self._whole[1]
        rows, shape = slice(linear.first, linear.first + linear.out), (linear.out, linear.in_)
        return self._refs.matrix(
            weight[rows], scb[rows], self._bias(linear), shape=shape, name=name
        )

    def _grouped(self, linear: Linear, packed: PackedWeight) -> Matrix:
        shape = linear.out, linear.in_
        return grouped_matrix(
            self._refs, packed, self._bias(linear), shape=shape, name=linear.module
        )

    def _bias(self, linear: Linear) -> Tensor | None:
        if linear.bias not in self._tensors.shapes:
            return None
        return self._tensors.get(linear.bias)[linear.first : linear.first + linear.out]

    def _packed_rows(self, linear: Linear) -> PackedWeight | None:
        """The rows of a linear as their weight is stored; None if csrc cannot use them so."""
        packed = self._packed(linear.weight)
        return None if packed is None else rows_of(packed, linear.first, linear.out)

    def _packed(self, name: str) -> PackedWeight | None:
        """A weight in groups. The last one is kept: parts, and the embedding as head, follow."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._read_packed(name)
        return self._last[1]

    def _read_packed(self, name: str) -> PackedWeight | None:
        packed = self._tensors.packed(name)
        if packed is not None:
            return packed
        grouped = self._tensors.grouped(name)
        if grouped is None or kind_of(grouped) is None:
            return None
        return pack(grouped, name)


def _same(orders: Sequence[Tensor | None]) -> bool:
    first = orders[0] if orders else None
    return all(
        one is first or (one is not None and first is not None and torch.equal(one, first))
        for one in orders
    )
