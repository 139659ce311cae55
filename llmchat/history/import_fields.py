"""Fields of an imported record, each checked for what the history can hold. A field that is absent or null has its empty value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The last second of the year 9999: what comes after it cannot be written as a date.
LATEST = 253_402_300_799.0
_MOST = 1_000_000_000
_SHOWN, _LINE = 40, 160


class Unusable(ValueError):
    """A field whose value cannot be right."""


def text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"`{name}` is not a text: {shown(value)}")
    return value


def texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Unusable(f"`{name}` is not a list of texts: {shown(values)}")
    return tuple(values)


def moment(record: Mapping[str, Any], name: str) -> float:
    """Seconds since 1970; 0 where they are not known."""
    value = record.get(name)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(f"`{name}` is not a time in seconds since 1970: {shown(value)}")
    if not 0 <= value <= LATEST or not math.isfinite(value):
        raise Unusable(
            f"`{name}` is not a time between 1970 and 9999, in seconds since 1970: {shown(value)}"
        )
    return float(value)


def count(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise Unusable(f"`{name}` is not a number from 0 to {_MOST:,}: {shown(value)}")
    return value


def choice(record: Mapping[str, Any], name: str, values: Sequence[str]) -> str:
    """One of some words; the first where the field is absent."""
    value = record.get(name)
    if value is None:
        return values[0]
    if value not in values:
        raise Unusable(f"`{name}` must be {' or '.join(values)}, not {shown(value)}")
    return str(value)


def shown(value: Any) -> str:
    """A value short enough for a line, without control characters."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):
        # A number of more digits than Python writes, or a value nested too deeply.
        written = f"a {type(value).__name__}"
    return f"`{written[:_SHOWN]}…`" if len(written) > _SHOWN else f"`{written}`"


def cut(written: str) -> str:
    """The beginning of a line that may quote a long value."""
    return written if len(written) <= _LINE else f"{written[:_LINE]}…"
