"""Live adapters: LoRA matrices next to the quantised weights, switched, scaled and added up without
loading the model again.

y = W x + sum of strength * scale * B (A x). A merged adapter is subtracted with strength -1, which
leaves the rounding of the merged weights, no larger than that of any quantised weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmchat.engines.transformers.lora import Adapter, check, needs_peft, read_adapter_config
from llmchat.engines.transformers.tied_heads import with_head
from llmchat.errors import Mismatch


@dataclass(frozen=True, eq=False)
class LiveAdapter:
    """modules: by the name of a linear, A [rank, in], B [out, rank] and their trained scale."""

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

    Raises Mismatch for one of another base, and for one that changes more than linear layers.
    """
    if needs_peft(read_adapter_config(folder)):
        raise Mismatch(
            f"the adapter {folder.name} is more than linear layers and cannot be applied live",
            "`llmchat merge` merges it",
        )
    adapter = Adapter(folder, base=config)
    if adapter.embeddings:
        raise Mismatch(
            f"the adapter {folder.name} changes the embedding `{adapter.embeddings[0]}`, so it"
            " cannot be applied live",
            "`llmchat merge` merges it",
        )
    check(adapter, with_head(shapes, config))
    matrices = {module: adapter.matrices(module, dtype) for module in adapter.modules}
    return LiveAdapter(
        name,
        {module: (a.to(device), b.to(device), scale) for module, (a, b, scale) in matrices.items()},
    )


class Switch:
    """The adapters that apply to the current call of the model."""

    def __init__(self) -> None:
        self.active: LiveAdapters = ()


class Part(NamedTuple):
    """Rows first, first + 1, … of the linear `name`, of which `rows` are meant."""

    name: str
    rows: int
    first: int = 0


class AdaptedLinear(nn.Module):
    """A linear layer, or several stacked along the rows, with live adapters.

    parts: of which linears the outputs are, in their order.
    """

    def __init__(self, inner: nn.Module, parts: Sequence[Part], switch: Switch):
        super().__init__()
        self.inner = inner
        self.parts = tuple(parts)
        self._switch = switch

    @property
    def weight(self) -> Any:
        return self.inner.weight

    @property
    def bias(self) -> Any:
        return self.inner.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        add_live(out, x, self.parts, self._switch)
        return out


def add_live(out: Tensor, x: Tensor, parts: Sequence[Part], switch: Switch) -> None:
    """Add the change of the active adapters to the output of a linear. parts: see AdaptedLinear."""
    for adapter, strength in switch.active:
        start = 0
        for name, rows, first in parts:
            if matrices := adapter.modules.get(name):
                a, b, scale = matrices
                change = ((x.to(a.dtype) @ a.T) @ b[first : first + rows].T).to(out.dtype)
                out[..., start : start + rows] += change * (scale * strength)
            start += rows


def adaptable(model: nn.Module) -> frozenset[str]:
    """The names of the linears that live adapters can change."""
    return frozenset(
        part.name
        for module in model.modules()
        if isinstance(module, AdaptedLinear)
        for part in module.parts
    )


def check_adaptable(adapter: LiveAdapter, folder: Path, names: frozenset[str] | None) -> None:
    """Raise Mismatch for an adapter of a layer that is not among `names`, whose weight the model
    reads itself. None: all layers can be changed.
    """
    missing = next(
        (module for module in adapter.modules if names is not None and module not in names), None
    )
    if missing:
        raise Mismatch(
            f"the adapter {folder.name} changes `{missing}`, whose weight the model reads"
            " itself, so it cannot be applied live",
            "`llmchat merge` merges it",
        )
