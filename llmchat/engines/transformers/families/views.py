"""Linears that a checkpoint keeps inside other tensors: experts that are stacked, matrices that are
transposed or interleaved. They get names of their own, as if each were a tensor of the file.
"""

from dataclasses import dataclass

from torch import Tensor

from llmchat.engines.transformers.weights import Tensors


@dataclass(frozen=True)
class View:
    """Rows start, start + step, … of matrix `index` of a stack (None: the tensor is a matrix),
    which is [in, out] if `is_transposed`. stop: the end of the rows; None: all.

    A view of one dimension less (biases of experts) has rows that are numbers.
    """

    source: str
    index: int | None = None
    is_transposed: bool = False
    start: int = 0
    stop: int | None = None
    step: int = 1

    def of(self, tensor: Tensor) -> Tensor:
        matrix = tensor if self.index is None else tensor[self.index]
        if self.is_transposed:
            matrix = matrix.T
        return matrix[self.start : self.stop : self.step].contiguous()

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        sizes = source if self.index is None else source[1:]
        rows, *rest = reversed(sizes) if self.is_transposed else sizes
        return len(range(rows)[self.start : self.stop : self.step]), *rest


class ViewedTensors:
    """Tensors with views. A view whose source is missing, or whose name is there (in a prepared
    copy), is left out.
    """

    def __init__(self, tensors: Tensors, views: dict[str, View]):
        self._tensors = tensors
        self._views = {
            name: view
            for name, view in views.items()
            if view.source in tensors.shapes and name not in tensors.shapes
        }
        hidden = {view.source for view in self._views.values()}
        kept = {name: shape for name, shape in tensors.shapes.items() if name not in hidden}
        seen = {name: view.shape(tensors.shapes[view.source]) for name, view in self._views.items()}
        self.shapes: dict[str, tuple[int, ...]] = kept | seen
        self.untied = tensors.untied

    def get(self, name: str) -> Tensor:
        view = self._views.get(name)
        return self._tensors.get(name) if view is None else view.of(self._tensors.get(view.source))

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return None if self._views.keys() & set(names) else self._tensors.int8(*names)

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors.head_int8()
