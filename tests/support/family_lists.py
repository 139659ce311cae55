"""Which cases of support.tiny_families which executor runs; tests keep the lists honest."""

from typing import Any

import pytest

from support.compiled_models import needs_compiler
from support.tiny_families import CASES

# Run by transformers' modules: the config has no plan (yet).
NOT_PLANNED: frozenset[str] = frozenset(
    {
        "llama: dynamic rope",
        "falcon-rw",
        "falcon-rw: odd",
        "bloom: odd, residual after the norm",
        "opt: odd, norm after, projections",
    }
)
# Their plan is run by torch, in int8 too.
NOT_COMPILED = frozenset(
    {
        "llama: heads of 24",
        "deepseek-v2: odd, groups",
        "falcon-h1: odd",
        "granite-moe-hybrid: odd, dense, rope",
        "rwkv: odd",
    }
)

PLANNED = [name for name in CASES if name not in NOT_PLANNED]
COMPILED = [name for name in PLANNED if name not in NOT_COMPILED]


def compiler(test: Any) -> Any:
    """Skip a test where the compiled step cannot be built."""
    for mark in needs_compiler:
        test = mark(test)
    return test


def cases(names: Any) -> Any:
    """Parametrise a test by the fixture `tiny`: fast for ordinary variants that have a plan."""
    return pytest.mark.parametrize("tiny", [_marked(name) for name in names], indirect=True)


def _marked(name: str) -> Any:
    slow = ":" in name or name in NOT_PLANNED
    return pytest.param(name, marks=pytest.mark.slow if slow else ())
