"""Live adapters: LoRA matrices beside the quantised weights, switched, scaled and stacked without loading anything again.

y = W x + sum of strength * scale * B (A x). A merged adapter can be taken out in the same way, with strength -1: what is left of it is the
rounding of the merged weights, as large as that of any quantised weight.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmchat.engines.transformers.lora import Adapter, check, needs_peft, read_adapter_config
from llmchat.engines.transformers.tied_heads import with_head
from llmchat.errors import Mismatch


@dataclass(frozen=True, eq=False)
class LiveAdapter:
    """modules: by the name of a linear, A [rank, in], B [out, rank] and the scale they were trained with."""

    name: str
    modules: dict[str, tuple[Tensor, Tensor, float]]


LiveAdapters = tuple[tuple[LiveAdapter, float], ...]


def open_live(
    name: str,
    folder: Path,
    config: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> LiveAdapter:
    """The adapter in `folder` for a base with this config.json and these tensors.

    Raises Mismatch where it was made for another base, or is more than matrices beside linears.
    """
    if needs_peft(read_adapter_config(folder)):
        raise Mismatch(
            f"the adapter {folder.name} changes more than linear layers and cannot be put on live",
            "`llmchat merge` merges it",
        )
    adapter = Adapter(folder, base=config)
    if adapter.embeddings:
        raise Mismatch(
            f"the adapter {folder.name} changes `{adapter.embeddings[0]}`, an embedding, and cannot be put on live",
            "`llmchat merge` merges it",
        )
    check(adapter, with_head(shapes, config))
    matrices = {module: adapter.matrices(module, dtype) for module in adapter.modules}
    return LiveAdapter(
        name,
        {module: (a.to(device), b.to(device), scale) for module, (a, b, scale) in matrices.items()},
    )


class Switch:
    """Which adapters are in force in the forward pass that is running."""

    def __init__(self) -> None:
        self.active: LiveAdapters = ()


class AdaptedLinear(nn.Module):
    """A linear layer, or several one above the other, with the live adapters in force. names: with the rows that each takes of the output."""

    def __init__(self, inner: nn.Module, names: dict[str, int], switch: Switch):
        super().__init__()
        self.inner = inner
        self.names = names
        self._switch = switch

    @property
    def weight(self) -> Any:
        return self.inner.weight

    @property
    def bias(self) -> Any:
        return self.inner.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        add_live(out, x, self.names, self._switch)
        return out


def add_live(out: Tensor, x: Tensor, names: dict[str, int], switch: Switch) -> None:
    """Add to the output of a linear what the adapters in force change of it. names: as in AdaptedLinear."""
    for adapter, strength in switch.active:
        start = 0
        for name, rows in names.items():
            if matrices := adapter.modules.get(name):
                a, b, scale = matrices
                change = ((x.to(a.dtype) @ a.T) @ b.T).to(out.dtype)
                out[..., start : start + rows] += change * (scale * strength)
            start += rows


def adaptable(model: nn.Module) -> frozenset[str]:
    """The names of the linears on which live adapters can be put."""
    return frozenset(
        name
        for module in model.modules()
        if isinstance(module, AdaptedLinear)
        for name in module.names
    )


def check_adaptable(adapter: LiveAdapter, folder: Path, names: frozenset[str] | None) -> None:
    """Raise Mismatch for an adapter of a layer that is not among `names`: the model reads its weight itself. None: there are no such layers."""
    missing = next(
        (module for module in adapter.modules if names is not None and module not in names), None
    )
    if missing:
        raise Mismatch(
            f"the adapter {folder.name} changes `{missing}`, whose weight the model reads itself, and cannot be put on live",
            "`llmchat merge` merges it",
        )
