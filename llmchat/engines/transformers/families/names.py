"""The names of tensors in a plan."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from llmchat.engines.transformers.families.blocks import Linear
from llmchat.engines.transformers.families.plan import Plan

T = TypeVar("T")


def tensor_names(plan: Plan) -> set[str]:
    """Everything in a plan that can be the name of a tensor."""
    names = set(found_in(plan, str))
    for linear in found_in(plan, Linear):
        names |= {linear.weight, linear.bias}
    return names


def found_in(value: Any, kind: type[T]) -> Iterator[T]:
    """The values of a kind within a plan."""
    if isinstance(value, kind):
        yield value
    if isinstance(value, tuple):
        for one in value:
            yield from found_in(one, kind)
    elif is_dataclass(value):
        for field in fields(value):
            yield from found_in(getattr(value, field.name), kind)
