"""Which layers of a module tree may be replaced by quantised ones.

Only linear layers whose weight nobody but the layer itself reads. A subclass may compute something else with its matrix (the routers of Llama 4
and PhiMoE, DeepSeek V4's grouped projections), and a module that reads the weight of a child (Mamba: `dt_proj.weight @ x`) would read
bytes. Those keep their 16 bits.
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
# What a module does when it is built or initialised, before it has weights.
_BUILDING = ("__init__", "_init_weights", "reset_parameters")


def quantisable(model: Any) -> dict[str, nn.Module]:
    """The layers that can be quantised, by their paths in the tree; the output head is not among them."""
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
    """The plain linear layers that keep their 16 bits, by their paths: what bitsandbytes must be told to leave alone."""
    from transformers.pytorch_utils import Conv1D

    kept = quantisable(model)
    return [
        path
        for path, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and path not in kept
    ]


def shared_weights(model: Any) -> dict[str, str]:
    """The path of a parameter → the path of the one whose tensor it uses: layers of Zamba share whole blocks."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _multiplies(module: nn.Module) -> bool:
    """Whether a subclass of nn.Linear computes what nn.Linear does (Falcon's), tried on another matrix."""
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
    except Exception:  # it wants more, or another shape
        return False
    wanted = F.linear(x, weight, None if module.bias is None else bias)
    return (
        isinstance(out, torch.Tensor)
        and out.shape == wanted.shape
        and bool(torch.allclose(out, wanted, atol=1e-5))
    )


def _read_by_parents(model: nn.Module) -> set[str]:
    """Paths of modules whose weight is read by the code of the module that holds them."""
    found = set()
    for path, module in model.named_modules():
        kind: Any = type(module)
        for child in _children_read(kind):
            found.add(f"{path}.{child}" if path else child)
    return found


@functools.cache
def _children_read(kind: Any) -> frozenset[str]:
    """Names of children of which the code of a class reads `self.NAME.weight`.

    Code that mentions int8 knows that the weight may be one (T5's `wo`).
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
