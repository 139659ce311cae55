"""Linear layers whose weights are laid out for oneDNN, where torch has it."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows that the layout of the weights is chosen for.
_ROWS = 1024
_ACTIVATIONS = {
    "none": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def activated(x: Tensor, name: str) -> Tensor:
    """The activation function of that name."""
    return _ACTIVATIONS[name](x)


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
