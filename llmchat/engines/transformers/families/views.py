"""Tensors that a checkpoint keeps in another form: experts that are stacked, matrices that are
transposed or interleaved, norms that are in pieces. They get names as if each were in the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import IntegrityError


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
        if not sizes:
            raise _wrong(self.source, source)
        rows, *rest = reversed(sizes) if self.is_transposed else sizes
        return len(range(rows)[self.start : self.stop : self.step]), *rest


@dataclass(frozen=True)
class Joined:
    """Tensors of one shape, one behind the other along their first dimension."""

    sources: tuple[str, ...]

    def of(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors)

    def shape(self, *sources: tuple[int, ...]) -> tuple[int, ...]:
        for name, shape in zip(self.sources, sources, strict=True):
            if not shape or not shape[0] or shape != sources[0]:
                raise _wrong(name, shape)
        return sum(shape[0] for shape in sources), *sources[0][1:]


@dataclass(frozen=True)
class Flat:
    """All numbers of a tensor in one dimension."""

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def of(self, tensor: Tensor) -> Tensor:
        return tensor.flatten()

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(source),)


class ViewedTensors:
    """Tensors with views. A view whose source is missing, or whose name is there (in a prepared
    copy), is left out. A view can have the name of its source: a transposed matrix, which int8
    files hold as [out, in].
    """

    def __init__(self, tensors: Tensors, views: Mapping[str, View | Joined | Flat]):
        self._tensors = tensors
        self._views = {name: view for name, view in views.items() if self._applies(name, view)}
        _check_stacks([view for view in self._views.values() if isinstance(view, View)], tensors)
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
        viewed = (name for name in names if name in self._views)
        if any(name not in self._views[name].sources for name in viewed):
            return None
        return self._tensors.int8(*names)

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors.head_int8()

    def grouped(self, name: str) -> GroupedWeight | None:
        return None if name in self._views else self._tensors.grouped(name)

    def packed(self, name: str) -> PackedWeight | None:
        return None if name in self._views else self._tensors.packed(name)

    def stored_size(self, name: str) -> int | None:
        return None if name in self._views else self._tensors.stored_size(name)

    def _applies(self, name: str, view: View | Joined | Flat) -> bool:
        shapes = self._tensors.shapes
        if name in view.sources:
            return name in shapes
        return name not in shapes and all(source in shapes for source in view.sources)


def _check_stacks(views: Iterable[View], tensors: Tensors) -> None:
    """Raise IntegrityError for a stack that has other matrices, or more rows, than its views."""
    stacks: dict[str, list[View]] = {}
    for view in views:
        if view.index is not None:
            stacks.setdefault(view.source, []).append(view)
    for source, parts in stacks.items():
        shape = tensors.shapes[source]
        count, stops = 1 + max(part.index or 0 for part in parts), [part.stop for part in parts]
        rows = shape[-1 if parts[0].is_transposed else 1] if len(shape) > 1 else 0
        ends = [stop for stop in stops if stop is not None]
        if len(shape) < 2 or shape[0] != count or (len(ends) == len(stops) and max(ends) != rows):
            raise _wrong(source, shape)


def _wrong(name: str, shape: tuple[int, ...]) -> IntegrityError:
    sizes = " x ".join(map(str, shape)) or "a single number"
    return IntegrityError(f"the tensor `{name}` is {sizes}, which does not fit config.json")
