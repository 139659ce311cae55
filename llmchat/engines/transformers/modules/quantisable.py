"""Finds the layers of a module tree that can be quantised.

These are the linear layers whose weight only the layer itself reads. A subclass can compute
something else with its matrix (the routers of Llama 4 and PhiMoE, DeepSeek V4's grouped
projections), and a module that reads the weight of a child (Mamba: `dt_proj.weight @ x`) would
read bytes. Those layers stay in 16 bits.
"""

import copy
import functools
import inspect
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_READ = re.compile(r"\bself\.(\w+)(?:\[[^\]]*\])?\.weight\b")
# Methods that run before a module has weights.
_BUILDING = ("__init__", "_init_weights", "reset_parameters")


def quantisable(model: Any) -> dict[str, nn.Module]:
    """The layers that can be quantised, by their paths; without the output head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    read = _read_by_parents(model)
    return {
        path: module
        for path, module in model.named_modules()
        if (type(module) in (nn.Linear, Conv1D) or _multiplies(module))
        and module is not head
        and path not in read
    }


def sixteen_bit(model: Any) -> list[str]:
    """The paths of plain linear layers that bitsandbytes must leave in 16 bits."""
    from transformers.pytorch_utils import Conv1D

    kept = quantisable(model)
    return [
        path
        for path, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and path not in kept
    ]


def shared_weights(model: Any) -> dict[str, str]:
    """By the path of a parameter, the path of the one whose tensor it uses: layers of Zamba share
    whole blocks.
    """
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _multiplies(module: nn.Module) -> bool:
    """Whether a subclass of nn.Linear computes the same as nn.Linear (Falcon's); tried out."""
    if not isinstance(module, nn.Linear):
        return False
    x, weight, bias = torch.rand(2, 5), torch.rand(3, 5), torch.rand(3)
    trial = copy.copy(module)
    trial._parameters = {
        "weight": nn.Parameter(weight),
        "bias": None if module.bias is None else nn.Parameter(bias),
    }
    trial.in_features, trial.out_features = 5, 3
    try:
        out = trial(x)
    except Exception:  # it takes other arguments
        return False
    wanted = F.linear(x, weight, None if module.bias is None else bias)
    return (
        isinstance(out, torch.Tensor)
        and out.shape == wanted.shape
        and bool(torch.allclose(out, wanted, atol=1e-5))
    )


def _read_by_parents(model: nn.Module) -> set[str]:
    """The paths of modules whose parent reads their weight."""
    found = set()
    for path, module in model.named_modules():
        kind: Any = type(module)
        for child in _children_read(kind):
            found.add(f"{path}.{child}" if path else child)
    return found


@functools.cache
def _children_read(kind: Any) -> frozenset[str]:
    """The children whose `self.NAME.weight` the code of a class reads.

    Code that mentions int8 handles quantised weights itself (T5's `wo`).
    """
    sources = []
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if name not in _BUILDING and not hasattr(nn.Module, name):
            sources.append(_source(function))
    sources.append(_source(kind.forward))
    return frozenset(
        child for text in sources if "torch.int8" not in text for child in _READ.findall(text)
    )


def _source(function: Any) -> str:
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return ""
