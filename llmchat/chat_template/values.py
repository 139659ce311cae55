"""The operations of chat templates on texts, lists and numbers, each within a budget.

Only the methods listed here can be called: one call of a method that pads, repeats or formats can
make a text of any size.
"""

import datetime
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from string import Formatter
from types import GeneratorType
from typing import Any

from llmchat.chat_template.budget import BeyondLimits, Budget, text_size

TEXT_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle",
    "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "swapcase", "title", "upper",
})  # fmt: skip
DICT_METHODS = frozenset({"get", "items", "keys", "values"})
LIST_METHODS = frozenset({"count", "index"})

MAX_RANGE = 100_000
# No chat template needs numbers of more bits, and their products take as long as their bits.
_MAX_BITS = 64
# The most characters that strip() may remove any of.
_MAX_STRIPPED = 1_000
# The largest product of the lengths of a text and of what is searched in it from the right.
_MAX_SEARCH = 100_000_000
_FROM_THE_RIGHT = frozenset({"rfind", "rindex", "rpartition", "rsplit"})
# A width in a directive (%1000d) pads.
_STRFTIME = re.compile(r"(?:[^%]|%[-_^#]?[A-Za-z%])*", re.DOTALL)
_MAX_STRFTIME = 200
# The longest spelling of one character in JSON (\ud83d\ude00); the space and signs around a value.
_JSON_CHARACTER, _JSON_VALUE, _MAX_INDENT = 12, 8, 16
_MAX_DIGITS = 1_000
_ONLY_STR, _LONG = {str}, 100_000
# The steps that make a text up to this length pay for it.
_SHORT = 64
_PLAIN = (int, float, bool, type(None))
# Characters of a text that is marked as safe can grow by this factor: it escapes what it takes.
_ESCAPE_GROWTH = 6
_VIEWS: tuple[type[Collection[Any]], ...] = (type({}.values()), type({}.items()))
_SEQUENCES: tuple[type[Collection[Any]], ...] = (list, tuple, set, frozenset, *_VIEWS)
_SIZED: Any = (Sequence, dict, type({}.keys()), *_VIEWS)
_LIST_ITEM, _TEXT_ITEM = 8, 60


def text_of(budget: Budget, value: Any) -> str:
    """The text of a value as str() writes it.

    A namespace has none: it may receive other values later, so its length is unknown.
    """
    if type(value) is str or isinstance(value, str):
        return value
    if type(value) in _PLAIN:
        return str(value)
    if _is_namespace(value):
        raise BeyondLimits("writes a namespace")
    budget.pay_for(value, 10)
    if _holds_namespace(value):
        raise BeyondLimits("writes a namespace")
    return str(value)


def _is_namespace(value: Any) -> bool:
    return type(value).__name__ == "Namespace"


def _holds_namespace(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, _SEQUENCES):
            waiting += item
        elif _is_namespace(item):
            return True
    return False


def concat(budget: Budget, pieces: Iterable[str]) -> str:
    """The pieces as one text."""
    held = list(pieces)
    budget.spend(_total_size(held))
    return "".join(held)


def _total_size(pieces: Sequence[str]) -> int:
    size = sum(map(len, pieces))
    return size if size < _LONG else sum(map(text_size, pieces))


def add_all(budget: Budget, parts: Sequence[Any], add: Callable[[Any, Any], Any]) -> Any:
    """The sum of the parts; texts are joined in one step. add: adds two values of other types."""
    if set(map(type, parts)) == _ONLY_STR:
        if sum(map(len, parts)) > _SHORT:
            budget.spend(_total_size(parts))
        return "".join(parts)
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


def pay_for_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Pay for the result of an operator. Raises BeyondLimits for one that no template needs."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _check_numbers(operator, left, right)
    if operator in ("%", "**"):
        raise BeyondLimits(f"uses {operator} in a way that no chat template needs")
    for value, other in ((left, right), (right, left)):
        times = max(0, other) if operator == "*" and isinstance(other, int) else 1
        if isinstance(value, str):
            budget.spend(_bytes_per_character(value, other) * len(value) * times)
        elif isinstance(value, list | tuple):
            budget.pay_for(value, times)


def _bytes_per_character(text: str, other: Any) -> int:
    """Of a text that is combined with `other`. A text marked as safe escapes the other one."""
    marked = any(isinstance(one, str) and type(one) is not str for one in (text, other))
    if marked:
        return 4 * _ESCAPE_GROWTH
    return 1 if text.isascii() else 4


def _check_numbers(operator: str, left: float, right: float) -> None:
    for value in (left, right):
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise BeyondLimits(f"calculates with numbers of more than {_MAX_BITS} bits")
    if operator == "**" and abs(right) > _MAX_BITS:
        raise BeyondLimits("raises a number to a power that no chat template needs")


def call_text_method(
    budget: Budget, method: Any, arguments: Sequence[Any], named: dict[str, Any]
) -> Any:
    """Call a bound method of a text. Its name is in TEXT_METHODS."""
    text, name = method.__self__, method.__name__
    first = arguments[0] if arguments else None
    growth = 1 if type(text) is str else _ESCAPE_GROWTH
    if name == "format":
        return _format(budget, text, arguments, named)
    if name == "join":
        pieces = to_list(budget, first)
        budget.spend(growth * (sum(map(len, pieces)) + text_size(text) * len(pieces)))
        return method(pieces)
    if name == "replace":
        budget.spend(growth * _size_after_replacing(text, *map(str, arguments[:2])))
    elif name in ("split", "rsplit", "splitlines"):
        _check_search(text, name, first)
        budget.spend(text_size(text) + 64 * _most_parts(text, first))
    else:
        _check_search(text, name, first)
        budget.spend(text_size(text) >> 2)
    return method(*arguments, **named)


def _check_search(text: str, name: str, wanted: Any) -> None:
    if name in ("strip", "lstrip", "rstrip"):
        return _check_stripped(wanted)
    backwards = name in _FROM_THE_RIGHT and isinstance(wanted, str)
    if backwards and len(text) * len(wanted) > _MAX_SEARCH:
        raise BeyondLimits(f"searches for {len(wanted):,} characters from the right")


def _most_parts(text: str, separator: Any) -> int:
    """How many parts split() makes of a text, estimated where it splits at white space."""
    if isinstance(separator, str) and separator:
        return text.count(separator) + 1
    return len(text) // 8 + 1


def _format(budget: Budget, text: str, arguments: Sequence[Any], named: dict[str, Any]) -> str:
    """str.format() with plain fields: {}, {0} and {name}.

    A width pads, and an attribute leads out of the sandbox.
    """
    pieces, number = [], 0
    for literal, field, spec, conversion in Formatter().parse(text):
        pieces.append(literal)
        if field is None:
            continue
        if spec or conversion or not re.fullmatch(r"\w*", field):
            raise BeyondLimits("formats in a way that no chat template needs")
        key = field or str(number)
        number += not field
        value = arguments[int(key)] if key.isdecimal() else named[key]
        pieces.append(text_of(budget, value))
    return concat(budget, pieces)


def to_list(budget: Budget, value: Any) -> list[Any]:
    """list(), paid for as it grows."""
    if isinstance(value, _SIZED):
        item = _LIST_ITEM + (_TEXT_ITEM if isinstance(value, str) else 0)
        budget.spend(64 + item * len(value))
        return list(value)
    if not isinstance(value, GeneratorType):
        return list(value)
    found = []
    for item in value:
        budget.step()
        budget.spend(64)
        found.append(item)
    return found


def short_range(*arguments: int) -> range:
    """range() of at most MAX_RANGE numbers."""
    found = range(*arguments)
    if len(found) > MAX_RANGE:
        raise BeyondLimits(f"counts further than {MAX_RANGE:,}")
    return found


def to_dict(budget: Budget, *arguments: Any, **named: Any) -> dict[Any, Any]:
    """dict()"""
    given = [one if isinstance(one, dict) else to_list(budget, one) for one in arguments]
    found: dict[Any, Any] = dict(*given, **named)
    budget.pay_for(found)
    return found


def replace(budget: Budget, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    """str.replace()"""
    text, old, new = (text_of(budget, one) for one in (value, old, new))
    budget.spend(_size_after_replacing(text, old, new))
    return str(text).replace(old, new, -1 if count is None else count)


def _size_after_replacing(text: str, old: str = "", new: str = "") -> int:
    """Bytes of the result, at most."""
    places = text.count(old)
    wide = 4 if len(new) * places > _LONG else 1
    return text_size(text) + wide * places * len(new)


def join(budget: Budget, items: Iterable[Any], separator: Any) -> str:
    """str.join() of the texts of the items."""
    pieces = [text_of(budget, item) for item in to_list(budget, items)]
    between = text_of(budget, separator)
    budget.spend(sum(map(text_size, pieces)) + text_size(between) * len(pieces))
    return str(between).join(pieces)


def strip(budget: Budget, value: Any, chars: str | None = None) -> str:
    """str.strip()"""
    _check_stripped(chars)
    text = text_of(budget, value)
    budget.spend(text_size(text) >> 2)
    return text.strip(chars)


def _check_stripped(chars: Any) -> None:
    if isinstance(chars, str) and len(chars) > _MAX_STRIPPED:
        raise BeyondLimits(f"strips any of {len(chars):,} characters")


def to_json(
    budget: Budget,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of jinja2's own filter. The arguments are transformers'."""
    if isinstance(indent, str) or (indent is not None and indent > _MAX_INDENT):
        raise BeyondLimits(f"indents JSON by more than {_MAX_INDENT}")
    if separators is not None and sum(map(len, separators)) > 2 * _JSON_VALUE:
        raise BeyondLimits("separates JSON by long texts")
    budget.pay_for(value)
    budget.spend(_json_size(value, indent or 0))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _json_size(value: Any, indent: int) -> int:
    """Bytes of the JSON of a value, at most."""
    size, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        size += _JSON_VALUE + indent * depth
        if isinstance(item, str):
            plain = item.isascii() and item.isprintable()
            size += len(item) if plain else _JSON_CHARACTER * len(item)
        elif isinstance(item, dict):
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list | tuple):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, int | float):
            size += 24
    return size


def total(budget: Budget, items: Iterable[Any], start: Any = 0) -> Any:
    """sum(), of numbers only: a sum of lists or texts takes time quadratic in their number."""
    numbers = [start, *to_list(budget, items)]
    for value in numbers:
        if not isinstance(value, int | float):
            raise BeyondLimits("sums up values that are not numbers")
        _check_numbers("+", value, 0)
    return sum(numbers)


def rounded(value: float, precision: int = 0, method: str = "common") -> float:
    """round(), to at most 15 digits."""
    if abs(precision) > 15 or method != "common":
        raise BeyondLimits("rounds in a way that no chat template needs")
    return round(value, precision)


def to_int(value: Any, default: int = 0, base: int = 10) -> int:
    """jinja2's `int` for texts of a limited length; `default` for what is not a number."""
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        return default
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


def pay_for_indent(budget: Budget, text: str, width: Any) -> None:
    """Pay for a text whose lines are indented by `width`, a number or a text."""
    columns = len(width) if isinstance(width, str) else int(width)
    lines = len(text.splitlines()) + 1
    budget.spend(text_size(text) + lines * max(0, columns))


def strftime_now(pattern: str) -> str:
    """The current time, in a pattern without widths."""
    if len(pattern) > _MAX_STRFTIME or not _STRFTIME.fullmatch(pattern):
        raise BeyondLimits("writes the time in a way that no chat template needs")
    return datetime.datetime.now().strftime(pattern)
