"""Linear layers whose weights are laid out for oneDNN, where torch has it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows that the layout of the weights is chosen for.
_ROWS = 1024
# Rows of an activation at a time. oneDNN keeps a primitive for each number of rows it has seen,
# which took gigabytes in an hour of texts of all lengths; a block in the cache is faster, too.
_BLOCK = 64
_ACTIVATIONS: dict[str, Callable[[Tensor], object]] = {
    "none": lambda x: x,
    "gelu": torch.ops.aten.gelu_,
    "gelu_tanh": lambda x: torch.ops.aten.gelu_(x, approximate="tanh"),
    "silu": torch.ops.aten.silu_,
}


def activated(x: Tensor, name: str) -> Tensor:
    """x [T, width] after the activation function of that name, in place."""
    for block in x.split(_BLOCK):
        _ACTIVATIONS[name](block)
    return x


class Linear:
    """x [T, in] → [T, out]. weight: [out, in], of any float type."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.rows, self.columns = weight.shape
        self._bias = None if bias is None else bias.float().contiguous()
        weight = weight.float().contiguous()
        self._packed = torch.backends.mkldnn.is_available()
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if self._packed else weight
        )

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        if not self._packed:
            return activated(F.linear(x, self._weight, self._bias), activation)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], None
        )
        return activated(result, activation)
