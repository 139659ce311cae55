"""Tensors that a checkpoint keeps in another form: experts that are stacked, matrices that are
transposed or interleaved, norms that are in pieces. They get names as if each were in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
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

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def of(self, tensor: Tensor) -> Tensor:
        matrix = tensor if self.index is None else tensor[self.index]
        if self.is_transposed:
            matrix = matrix.T
        return matrix[self.start : self.stop : self.step].contiguous()

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        sizes = source if self.index is None else source[1:]
        rows, *rest = reversed(sizes) if self.is_transposed else sizes
        return len(range(rows)[self.start : self.stop : self.step]), *rest


@dataclass(frozen=True)
class Joined:
    """Tensors one behind the other along their first dimension."""

    sources: tuple[str, ...]

    def of(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors)

    def shape(self, *sources: tuple[int, ...]) -> tuple[int, ...]:
        return sum(shape[0] for shape in sources), *sources[0][1:]


class ViewedTensors:
    """Tensors with views. A view whose source is missing, or whose name is there (in a prepared
    copy), is left out. A view can have the name of its source (a transposed matrix), unless the
    source is int8: those of prepared copies have their final form.
    """

    def __init__(self, tensors: Tensors, views: Mapping[str, View | Joined]):
        self._tensors = tensors
        self._views = {name: view for name, view in views.items() if self._applies(name, view)}
        hidden = {source for view in self._views.values() for source in view.sources}
        kept = {name: shape for name, shape in tensors.shapes.items() if name not in hidden}
        seen = {
            name: view.shape(*(tensors.shapes[source] for source in view.sources))
            for name, view in self._views.items()
        }
        self.shapes: dict[str, tuple[int, ...]] = kept | seen
        self.untied = tensors.untied

    def get(self, name: str) -> Tensor:
        view = self._views.get(name)
        if view is None:
            return self._tensors.get(name)
        return view.of(*map(self._tensors.get, view.sources))

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return None if self._views.keys() & set(names) else self._tensors.int8(*names)

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors.head_int8()

    def _applies(self, name: str, view: View | Joined) -> bool:
        shapes = self._tensors.shapes
        if name in view.sources:
            return name in shapes and self._tensors.int8(name) is None
        return name not in shapes and all(source in shapes for source in view.sources)
