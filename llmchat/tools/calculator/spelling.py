"""Spell a result: exact where it is short, and as a decimal."""

from fractions import Fraction

from llmchat.tools.calculator import units
from llmchat.tools.calculator.numbers import CONTEXT, Percent, Value, real

# Significant digits of a rounded decimal.
_DIGITS = 15
# Most digits of a decimal that is written in full.
_MOST_PLACES = 20
# A number of more digits is rounded, so as not to fill the window.
_LARGEST = 10**1000


def spelled(value: Value | bool | str) -> str:
    """`2`, `0.375`, `1/3 ≈ 0.333333333333333`, `≈ 1.4142135623731 m`, `true` or `0xff`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, Percent):
        return f"{_number(value * 100, '%')} = {_number(value, '')}"
    if not units.is_quantity(value):
        return _number(value, "")
    return _number(value.magnitude, f" {units.symbol(value)}")


def _number(value: Value, unit: str) -> str:
    if not isinstance(value, Fraction):
        return f"≈ {_rounded(value)}{unit}"
    places = _decimal_places(value)
    if places is not None and abs(value) < _LARGEST:
        return f"{_decimal(value, places)}{unit}"
    rounded = f"≈ {_rounded(real(value))}{unit}"
    exact = f"{value.numerator}/{value.denominator}"
    return f"{exact}{unit} {rounded}" if len(exact) <= 2 * _MOST_PLACES else rounded


def _decimal_places(value: Fraction) -> int | None:
    """How many decimal places the value has; None if too many, or without end."""
    rest, places = value.denominator, 0
    while rest != 1 and places <= _MOST_PLACES:
        value = value * 10
        rest, places = value.denominator, places + 1
    return places if rest == 1 else None


def _decimal(value: Fraction, places: int) -> str:
    digits = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def _rounded(value: Value) -> str:
    text: str = CONTEXT.nstr(value, _DIGITS, min_fixed=-6, max_fixed=_DIGITS)
    return text.removesuffix(".0").replace(".0e", "e")
