"""The operations of chat templates on texts, lists and numbers, each within the budget of its run.

Only what is named here can be called: a method that pads, repeats or formats can make any size of text by one call.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterable, Sequence
from string import Formatter
from types import GeneratorType
from typing import Any

from llmchat.chat_template.budget import BeyondLimits, budget, bytes_of, pay_for

TEXT_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower",
    "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
})  # fmt: skip
DICT_METHODS = frozenset({"get", "items", "keys", "values"})
LIST_METHODS = frozenset({"count", "index"})

MAX_RANGE = 100_000
# Numbers of more bits are no numbers of a chat template, and their products take as long as their bits.
_MAX_BITS = 64
# Longest text that strip() may look for the characters of, and the product of lengths that a search from the right may take.
_MAX_STRIPPED, _MAX_SEARCH = 1_000, 100_000_000
_FROM_THE_RIGHT = frozenset({"rfind", "rindex", "rpartition", "rsplit"})
# A width in a directive (%1000d) pads.
_STRFTIME = re.compile(r"(?:[^%]|%[-_^#]?[A-Za-z%])*", re.DOTALL)
_MAX_STRFTIME = 200
# The longest text of one character of JSON, \ud83d\ude00, and the space and signs around a value.
_JSON_CHARACTER, _JSON_VALUE, _MAX_INDENT = 12, 8, 16
_TEXTS, _LARGE = {str}, 100_000
# Smaller texts are paid for by the steps that make them.
_SMALL = 64
_PLAIN = (int, float, bool, type(None))


def text_of(value: Any) -> str:
    """As str() writes it. A namespace holds what was put into it later, so that nobody knows how long it is: it has no text."""
    if type(value) is str or isinstance(value, str):
        return value
    if type(value) in _PLAIN:
        return str(value)
    if type(value).__name__ == "Namespace":
        raise BeyondLimits("writes a namespace")
    pay_for(value, 10)
    if _holds_namespace(value):
        raise BeyondLimits("writes a namespace")
    return str(value)


def _holds_namespace(value: Any) -> bool:
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest += one.values()
        elif isinstance(one, list | tuple | set | frozenset | type({}.values()) | type({}.items())):
            rest += one
        elif type(one).__name__ == "Namespace":
            return True
    return False


def concat(pieces: Iterable[str]) -> str:
    """What a macro, a call block or a set block wrote."""
    held = list(pieces)
    budget().spend(_bytes_of_all(held))
    return "".join(held)


def _bytes_of_all(pieces: Sequence[str]) -> int:
    size = sum(map(len, pieces))
    return size if size < _LARGE else sum(map(bytes_of, pieces))


def add_all(parts: Sequence[Any], one: Callable[[str, Any, Any], Any]) -> Any:
    """The sum of `parts`, texts at once. one: adds two of another kind."""
    if set(map(type, parts)) == _TEXTS:
        size = sum(map(len, parts))
        if size > _SMALL:
            budget().spend(_bytes_of_all(parts))
        return "".join(parts)
    total = parts[0]
    for part in parts[1:]:
        total = one("+", total, part)
    return total


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Pay for the result of an operator. Raises BeyondLimits."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _check_numbers(operator, left, right)
    if operator in ("%", "**"):
        raise BeyondLimits(f"uses {operator} in a way that no chat template needs")
    for value, other in ((left, right), (right, left)):
        if not isinstance(value, str | list | tuple):
            continue
        times = max(0, other) if operator == "*" and isinstance(other, int) else 1
        if isinstance(value, str):
            # Text that is marked as safe escapes what is added to it.
            marked = any(isinstance(one, str) and type(one) is not str for one in (left, right))
            wide = 24 if marked else 1 if value.isascii() else 4
            budget().spend(wide * len(value) * times)
        else:
            pay_for(value, times)


def _check_numbers(operator: str, left: float, right: float) -> None:
    for value in (left, right):
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise BeyondLimits(f"reckons with numbers of more than {_MAX_BITS} bits")
    if operator == "**" and abs(right) > _MAX_BITS:
        raise BeyondLimits("raises a number to a power that no chat template needs")


def call_text_method(method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
    """method: a bound method of a text, whose name is in TEXT_METHODS."""
    text, name, here = method.__self__, method.__name__, budget()
    first = arguments[0] if arguments else None
    factor = 1 if type(text) is str else 6
    if name == "format":
        return formatted(text, arguments, named)
    if name == "join":
        pieces = listed(first)
        here.spend(factor * (sum(map(len, pieces)) + bytes_of(text) * len(pieces)))
        return method(pieces)
    if name == "replace":
        here.spend(factor * _replaced(text, *map(str, arguments[:2])))
    elif name in ("strip", "lstrip", "rstrip"):
        _check_stripped(first)
    elif (
        name in _FROM_THE_RIGHT and isinstance(first, str) and len(text) * len(first) > _MAX_SEARCH
    ):
        raise BeyondLimits(f"searches for {len(first):,} characters from the right")
    if name in ("split", "rsplit", "splitlines"):
        here.spend(
            bytes_of(text)
            + 64
            * (text.count(first) + 1 if isinstance(first, str) and first else len(text) // 8 + 1)
        )
    elif name != "replace":
        here.spend(bytes_of(text) >> 2)
    return method(*arguments, **named)


def formatted(text: str, arguments: Sequence[Any], named: dict[str, Any]) -> str:
    """str.format() with plain fields: {}, {0} and {name}. A width pads, and an attribute leads out of the sandbox."""
    pieces, number = [], 0
    for literal, field, spec, conversion in Formatter().parse(text):
        pieces.append(literal)
        if field is None:
            continue
        if spec or conversion or not re.fullmatch(r"\w*", field):
            raise BeyondLimits("formats in a way that no chat template needs")
        key = field or str(number)
        number += not field
        pieces.append(text_of(arguments[int(key)] if key.isdecimal() else named[key]))
    return concat(pieces)


def listed(value: Any) -> list[Any]:
    """list(), paid for as it grows."""
    here = budget()
    if isinstance(value, Sequence | dict | type({}.items()) | type({}.keys()) | type({}.values())):
        here.spend(64 + 8 * len(value) + (60 * len(value) if isinstance(value, str) else 0))
        return list(value)
    if not isinstance(value, GeneratorType):
        return list(value)
    found = []
    for item in value:
        here.step()
        here.spend(64)
        found.append(item)
    return found


def checked_range(*arguments: int) -> range:
    found = range(*arguments)
    if len(found) > MAX_RANGE:
        raise BeyondLimits(f"counts further than {MAX_RANGE:,}")
    return found


def checked_dict(*arguments: Any, **named: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = dict(
        *[one if isinstance(one, dict) else listed(one) for one in arguments], **named
    )
    pay_for(found)
    return found


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = text_of(value), text_of(old), text_of(new)
    budget().spend(_replaced(text, old, new))
    return str(text).replace(old, new, -1 if count is None else count)


def _replaced(text: str, old: str = "", new: str = "") -> int:
    """Bytes of the result, at most."""
    places = text.count(old)
    wide = 4 if len(new) * places > 100_000 else 1
    return bytes_of(text) + wide * places * len(new)


def join(values: Iterable[Any], between: Any) -> str:
    pieces, between = [text_of(value) for value in listed(values)], text_of(between)
    budget().spend(sum(map(bytes_of, pieces)) + bytes_of(between) * len(pieces))
    return str(between).join(pieces)


def strip(value: Any, chars: str | None = None) -> str:
    _check_stripped(chars)
    text = text_of(value)
    budget().spend(bytes_of(text) >> 2)
    return text.strip(chars)


def _check_stripped(chars: Any) -> None:
    if isinstance(chars, str) and len(chars) > _MAX_STRIPPED:
        raise BeyondLimits(f"strips any of {len(chars):,} characters")


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Without HTML's escapes, unlike jinja2's own; the arguments are those that transformers gives it."""
    if isinstance(indent, str) or (indent is not None and indent > _MAX_INDENT):
        raise BeyondLimits(f"indents JSON by more than {_MAX_INDENT}")
    if separators is not None and sum(map(len, separators)) > 2 * _JSON_VALUE:
        raise BeyondLimits("separates JSON by long texts")
    pay_for(value)
    budget().spend(_json_size(value, indent or 0))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _json_size(value: Any, indent: int) -> int:
    size, rest = 0, [(value, 1)]
    while rest:
        one, depth = rest.pop()
        size += _JSON_VALUE + (indent * depth if indent else 0)
        if isinstance(one, str):
            size += len(one) if one.isascii() and one.isprintable() else _JSON_CHARACTER * len(one)
        elif isinstance(one, dict):
            rest += [(item, depth + 1) for pair in one.items() for item in pair]
        elif isinstance(one, list | tuple):
            rest += [(item, depth + 1) for item in one]
        elif isinstance(one, int | float):
            size += 24
    return size


def total(values: Iterable[Any], start: Any = 0) -> Any:
    """sum(), of numbers alone: a sum of lists or texts grows with the square of their number."""
    for value in (held := [start, *listed(values)]):
        if not isinstance(value, int | float):
            raise BeyondLimits("sums up what is not a number")
        _check_numbers("+", value, 0)
    return sum(held)


def rounded(value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > 15 or method != "common":
        raise BeyondLimits("rounds in a way that no chat template needs")
    return round(value, precision)


def to_int(value: Any, default: int = 0, base: int = 10) -> int:
    """As jinja2's own, of numbers that a person could have written."""
    if isinstance(value, str) and len(value) > 1_000:
        return default
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


def check_indented(text: str, width: Any) -> None:
    wide = len(width) if isinstance(width, str) else int(width)
    budget().spend(bytes_of(text) + (len(text.splitlines()) + 1) * max(0, wide))


def strftime_now(pattern: str) -> str:
    if len(pattern) > _MAX_STRFTIME or not _STRFTIME.fullmatch(pattern):
        raise BeyondLimits("writes the time in a way that no chat template needs")
    return datetime.datetime.now().strftime(pattern)
