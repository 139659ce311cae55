"""Arithmetic of numbers and quantities, and conversions, with pint's definitions of units.

pint is loaded when an expression has a unit.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

from llmchat.errors import did_you_mean
from llmchat.tools import ToolError
from llmchat.tools.calculator import numbers
from llmchat.tools.calculator.numbers import Percent, Real, Value, bounded

# Units that nobody converts into each other, but whose letters are those of temperatures.
_TEMPERATURES = {"coulomb": "degree_Celsius", "farad": "degree_Fahrenheit"}
_SPELLINGS = {"KB": "kB", "Kb": "kbit", "°": "deg", "°c": "°C", "°f": "°F"}
_MOST_POWER = 20


@cache
def registry() -> Any:
    import pint

    return pint.UnitRegistry(non_int_type=Fraction, cache_folder=None)


def is_quantity(value: Value) -> bool:
    return not isinstance(value, (Fraction, Real, bool))


def quantity(number: Value, name: str) -> Value:
    """A number of a unit, such as 5 `km`. Raises ToolError for an unknown unit."""
    pint = registry()
    return pint.Quantity(number, pint.UnitsContainer({_known(name): Fraction(1)}))


def _known(name: str) -> str:
    """The name as pint spells it: as it is written, or else in small letters."""
    for written in (_SPELLINGS.get(name, name), name.lower()):
        # `in registry()` would read an expression.
        for prefix, unit, _ in registry().parse_unit_name(written):
            return f"{prefix}{unit}"
    hint = did_you_mean(name, [unit for unit in dir(registry()) if len(unit) > 3])
    raise ToolError(
        f"there is no unit, function or constant `{name}`" + (f"; {hint}" if hint else "")
    )


def add(left: Value, right: Value) -> Value:
    if isinstance(right, Percent) and not isinstance(left, Percent):
        return multiply(left, 1 + right)
    total = _computed(lambda: left + right)
    return Percent(total) if isinstance(left, Percent) and isinstance(right, Percent) else total


def negative(value: Value) -> Value:
    return Percent(-value) if isinstance(value, Percent) else -value


def subtract(left: Value, right: Value) -> Value:
    return add(left, negative(right))


def multiply(left: Value, right: Value) -> Value:
    return _computed(lambda: left * right)


def divide(left: Value, right: Value) -> Value:
    return _computed(lambda: left / right)


def floor_divide(left: Value, right: Value) -> Value:
    return _computed(lambda: _exact(left // right))


def _exact(value: Value) -> Value:
    return Fraction(value) if isinstance(value, int) else value


def remainder(left: Value, right: Value) -> Value:
    return _computed(lambda: left % right)


def power(base: Value, exponent: Value) -> Value:
    if is_quantity(exponent):
        raise ToolError("an exponent has no unit")
    if not is_quantity(base):
        return numbers.power(base, exponent)
    if not isinstance(exponent, Fraction) or abs(exponent) > _MOST_POWER:
        raise ToolError(f"the exponent of a unit is a fraction of at most {_MOST_POWER}")
    number = numbers.power(base.magnitude, exponent)
    return _computed(lambda: registry().Quantity(number, base.units**exponent))


def compare(left: Value, right: Value, test: Callable[[Value, Value], bool]) -> bool:
    return bool(_guarded(lambda: test(left, right)))


def convert(value: Value, target: Value) -> Value:
    """The value in the units of another quantity."""
    if not is_quantity(value):
        value = registry().Quantity(value)
    if not is_quantity(target) or target.magnitude != 1:
        raise ToolError("convert to a unit, as in `5 km to miles`")
    both = (_only_unit(value), _only_unit(target))
    if value.dimensionality != target.dimensionality and set(both) & set(_TEMPERATURES):
        named = [_TEMPERATURES.get(unit, unit) for unit in both]
        return _guarded(lambda: quantity(value.magnitude, named[0]).to(named[1]))
    return _guarded(lambda: value.to(target.units))


def in_radians(angle: Value) -> Value:
    return _guarded(lambda: angle.to("radian").magnitude) if is_quantity(angle) else angle


def symbol(value: Value) -> str:
    """The unit of a quantity, such as `km/h`, `m^2` or `1/s`."""
    return _symbols(value.unit_items())


def _symbols(items: Iterable[tuple[str, Value]]) -> str:
    above: list[str] = []
    below: list[str] = []
    for name, exponent in items:
        written = registry().get_symbol(name)
        size = abs(Fraction(exponent))
        text = (
            written if size == 1 else f"{written}^{size if size.denominator == 1 else f'({size})'}"
        )
        (above if exponent > 0 else below).append(text)
    head = "*".join(above)
    return f"{head or 1}/{'/'.join(below)}" if below else head


def with_magnitude(value: Value, number: Value) -> Value:
    """Another number of the same unit."""
    return registry().Quantity(number, value.units)


def applied(function: Callable[[], Value]) -> Value:
    """The result of a function that takes numbers, and perhaps quantities."""
    return _computed(function)


def _only_unit(value: Value) -> str:
    items = list(value.unit_items())
    return str(items[0][0]) if len(items) == 1 and items[0][1] == 1 else ""


def _computed(operation: Callable[[], Value]) -> Value:
    value = _guarded(operation)
    if not is_quantity(value):
        return bounded(value)
    if len(list(value.unit_items())) > 1:
        value = value.to_reduced_units()
    bounded(value.magnitude)
    return value if list(value.unit_items()) else value.magnitude


def _guarded(operation: Callable[[], Value]) -> Value:
    """The result of an operation. Raises ToolError for units that do not go together."""
    try:
        return operation()
    except (ZeroDivisionError, ToolError):
        raise
    except (ArithmeticError, TypeError, ValueError, AttributeError) as error:
        raise ToolError(_reason(error)) from error


def _reason(error: Exception) -> str:
    import pint

    if isinstance(error, pint.OffsetUnitCalculusError):
        return "temperatures are added or multiplied in kelvin: convert them first"
    if isinstance(error, pint.DimensionalityError):
        left, right = (_symbols(unit.unit_items()) or "a number" for unit in _units_of(error))
        return f"{left} and {right} do not go together"
    return "these values do not go together"


def _units_of(error: Any) -> Iterator[Any]:
    """The two units of a DimensionalityError, which has them in several forms."""
    return (registry().Quantity(Fraction(1), unit) for unit in (error.units1, error.units2))
