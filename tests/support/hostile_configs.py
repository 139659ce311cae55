"""Hostile versions of the config.json and the tensor shapes of a checkpoint, in a fixed order."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31 - 1, 2**31, 2**63, -(2**63), 2**70, 0.5, -0.5, 1e-30, 1e308,
    math.nan, math.inf, "", "x", [], [[]], [None], [0], [-1], [1, 2, 3], ["x", "y", "z"], {},
    {"a": 1}, {"rope_type": "x"},
)  # fmt: skip
# Config, in words of people: what was changed.
Variant = tuple[str, dict[str, Any]]


def variants(config: Mapping[str, Any]) -> Iterator[Variant]:
    """Each key missing, or with each hostile value, or with one near its own."""
    for path in _paths(config):
        yield f"{'.'.join(path)} is missing", _changed(config, path, lambda table, key: None)
        own = _at(config, path)
        for value in (*VALUES, *_near(own)):
            text = f"{'.'.join(path)} = {value!r}"
            yield text, _changed(config, path, lambda table, key, v=value: table.update({key: v}))


def _paths(config: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from _paths(value, (*before, key))


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def _changed(config: Mapping[str, Any], path: tuple[str, ...], change: Any) -> dict[str, Any]:
    copy = dict(config)
    if len(path) > 1:
        return copy | {path[0]: _changed(copy[path[0]], path[1:], change)}
    value = copy.pop(path[0])
    del value
    change(copy, path[0])
    return copy


def _near(value: Any) -> list[Any]:
    """Values of the same type that do not fit the rest."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 2 * value, value // 2, 7, 17, float(value), str(value)]
    if isinstance(value, float):
        return [-value, 2 * value, str(value)]
    if isinstance(value, list):
        return [value[:-1], value + value, value[::-1], [*value[:-1], None], [value]]
    return []


def shapes_near(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shapes that differ from this one."""
    found = {
        shape[::-1], shape[1:], (*shape, 1), (1, *shape), (0, *shape[1:]), (math.prod(shape),),
        *(
            (*shape[:at], size, *shape[at + 1 :])
            for at, own in enumerate(shape)
            for size in (own + 1, own - 1, 2 * own)
        ),
    }  # fmt: skip
    yield from sorted(found - {shape})
