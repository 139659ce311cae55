"""The tensors of a 16-bit checkpoint as `--weights int4` stores them."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers.families.check import bind
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised.calibration import importance
from llmchat.engines.transformers.quantised.four_bits import Grid, quantised
from llmchat.engines.transformers.quantised.recipe import recipe
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown


def in_few_bits(plan: Plan, tensors: Tensors, folder: Path) -> "FewBitTensors":
    """The tensors of a plan, whose matrices are quantised when they are asked for; before the
    first, the model reads the calibration text. folder: has its tokenizer.

    Weights that arrived quantised stay as they are.
    """
    plan = bind(plan, tensors.shapes)
    grids = {name: grid for name, grid in recipe(plan).items() if _is_float(tensors, name)}
    return FewBitTensors(tensors, grids, lambda: importance(plan, tensors, Tokenizer(folder)))


def _is_float(tensors: Tensors, name: str) -> bool:
    return name in tensors.shapes and tensors.int8(name) is None and not tensors.stored_size(name)


class FewBitTensors:
    """See tensors.Tensors. grids: by the name of a weight. measure: returns the importance of
    inputs by the name of a weight; where there is none they count alike.
    """

    def __init__(
        self,
        tensors: Tensors,
        grids: Mapping[str, Grid],
        measure: Callable[[], Mapping[str, Tensor]],
    ):
        self.shapes, self.untied = tensors.shapes, tensors.untied
        self._tensors, self._grids = tensors, grids
        self._importance = cache(measure)
        # A weight whose rows are parts of several linears is asked for several times.
        self._last: tuple[str, GroupedWeight | None] = "", None

    def get(self, name: str) -> Tensor:
        weight = self.grouped(name) if name in self._grids else None
        return self._tensors.get(name) if weight is None else weight.dequantised()

    def grouped(self, name: str) -> GroupedWeight | None:
        if name not in self._grids:
            return self._tensors.grouped(name)
        if self._last[0] != name:
            self._last = name, self._quantised(name)
        return self._last[1]

    def _quantised(self, name: str) -> GroupedWeight:
        weight = self._tensors.get(name)
        try:
            found = quantised(weight, self._importance().get(name), self._grids[name])
        except IntegrityError as error:
            raise IntegrityError(f"{shown(name)} holds NaN or infinity", error.hint) from error
        return found

    def stored_size(self, name: str) -> int | None:
        grid = self._grids.get(name)
        if grid is None:
            return self._tensors.stored_size(name)
        return grid.bytes_of(self.shapes[name])

    def packed(self, name: str) -> PackedWeight | None:
        return None if name in self._grids else self._tensors.packed(name)

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return None if self._grids.keys() & set(names) else self._tensors.int8(*names)

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return None
