"""Read the fields of an imported record, each checked for what the history can hold.

A field that is absent or null has its empty value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The last second of the year 9999: a later moment cannot be written as a date.
LATEST = 253_402_300_799.0
_MAX_COUNT = 1_000_000_000
_MAX_VALUE, _MAX_LINE = 40, 160


class Unusable(ValueError):
    """A field whose value cannot be right."""


def text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"`{name}` is not a text: {quoted(value)}")
    return value


def texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Unusable(f"`{name}` is not a list of texts: {quoted(values)}")
    return tuple(values)


def moment(record: Mapping[str, Any], name: str) -> float:
    """Seconds since 1970; 0 where the moment is unknown."""
    expected = "a time between 1970 and 9999, in seconds since 1970"
    return float(_number(record, name, int | float, LATEST, expected))


def count(record: Mapping[str, Any], name: str) -> int:
    return int(_number(record, name, int, _MAX_COUNT, f"a number from 0 to {_MAX_COUNT:,}"))


def _number(record: Mapping[str, Any], name: str, kind: Any, most: float, expected: str) -> float:
    value = record.get(name)
    if value is None:
        return 0
    right_kind = isinstance(value, kind) and not isinstance(value, bool)
    if not right_kind or not 0 <= value <= most or not math.isfinite(value):
        raise Unusable(f"`{name}` is not {expected}: {quoted(value)}")
    return float(value) if isinstance(value, float) else int(value)


def choice(record: Mapping[str, Any], name: str, values: Sequence[str]) -> str:
    """One of some words; the first where the field is absent."""
    value = record.get(name)
    if value is None:
        return values[0]
    if value not in values:
        raise Unusable(f"`{name}` must be {' or '.join(values)}, not {quoted(value)}")
    return str(value)


def quoted(value: Any) -> str:
    """A value as part of an error: at most 40 characters, control characters escaped."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):
        # A number with more digits than Python writes, or a value nested too deeply.
        written = f"a {type(value).__name__}"
    return f"`{_shortened(written, _MAX_VALUE)}`"


def one_line(message: str) -> str:
    """The beginning of an error that may quote a long value."""
    return _shortened(message, _MAX_LINE)


def _shortened(written: str, most: int) -> str:
    return written if len(written) <= most else f"{written[:most]}…"
