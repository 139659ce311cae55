"""Where two plans differ."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch

# Numbers that went through float32 are the same.
_CLOSE = 1e-6


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The fields of two plans that differ, with their values: `.layers[0].window: 0 4096`."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or not torch.allclose(one, other):
            yield f"{path}: other numbers"
    elif is_dataclass(one) and type(one) is type(other):
        for field in fields(one):
            name = field.name
            yield from differences(getattr(one, name), getattr(other, name), f"{path}.{name}")
    elif isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}[{index}]")
    elif not _same(one, other):
        yield f"{path}: {one} {other}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE)
    return bool(one == other)
