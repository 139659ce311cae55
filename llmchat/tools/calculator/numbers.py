"""Numbers that are exact as long as possible: fractions, and 40 digits for what is irrational.

A number that grows past its bound is an error before it is computed, so that `9**9**9` costs
nothing.
"""

from fractions import Fraction
from typing import Any

import mpmath

from llmchat.tools import ToolError

# A number (Fraction or CONTEXT.mpf) or a pint quantity of one.
Value = Any

# A context of our own: torch's sympy uses mpmath's global one.
CONTEXT: Any = mpmath.MPContext()
CONTEXT.dps = 40
Real: Any = CONTEXT.mpf
# An exact number has at most 4,214 digits: Python refuses to print more than 4,300.
_MOST_BITS = 14_000
# The largest exponent of an inexact number, in bits.
_MOST_EXPONENT = 1_000_000
# Largest n of n!, which has 3,777 digits.
MOST_FACTORIAL = 1_380
# A root of a higher degree is not looked for among the exact numbers.
_MOST_DEGREE = 1_000
# Inexact results this close to a multiple of one half are taken for it: sin(pi), log2(8).
_NEAR = Fraction(1, 10**30)


class Percent(Fraction):
    """A fraction that was written as a percentage: `80 + 15%` is 92."""


def bounded(value: Value) -> Value:
    """The number, if it is finite and not too large to be worked with."""
    if isinstance(value, Fraction):
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > _MOST_BITS:
            raise too_large()
    elif isinstance(value, Real):
        if not CONTEXT.isfinite(value):
            raise ToolError("the result is not a finite number")
        if value and abs(CONTEXT.mag(value)) > _MOST_EXPONENT:
            raise too_large()
    return value


def too_large() -> ToolError:
    return ToolError("the result is too large; exact numbers have at most 4,000 digits")


def not_real(what: str) -> ToolError:
    return ToolError(f"{what} is not a real number")


def real(value: Value) -> Any:
    """A number with 40 digits."""
    if isinstance(value, Fraction):
        return CONTEXT.mpf(value.numerator) / value.denominator
    return CONTEXT.mpf(value)


def snapped(value: Any) -> Value:
    """An inexact number, or the multiple of one half that it means."""
    if CONTEXT.mag(value) > 64:
        return bounded(value)
    near = Fraction(int(CONTEXT.nint(value * 2)), 2)
    return near if abs(value - real(near)) < real(_NEAR) else bounded(value)


def whole(value: Value, what: str) -> int:
    """An integer for a function that takes no other number."""
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise ToolError(f"{what} needs a whole number")
    return value.numerator


def power(base: Value, exponent: Value) -> Value:
    """base ** exponent; exact where the result is rational."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        exact = _exact_power(base, exponent)
        if exact is not None:
            return exact
    if base < 0:
        raise not_real("a root of a negative number")
    if base and abs(CONTEXT.log(real(base), 2) * real(exponent)) > _MOST_EXPONENT:
        raise too_large()
    return bounded(CONTEXT.power(real(base), real(exponent)))


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0 and exponent < 0:
        raise ZeroDivisionError
    root = base if exponent.denominator == 1 else exact_root(base, exponent.denominator)
    if root is None:
        return None
    bits = max(root.numerator.bit_length(), root.denominator.bit_length())
    if bits > 1 and (bits - 1) * abs(exponent.numerator) > _MOST_BITS:
        raise too_large()
    result = Fraction(root) ** _small(root, exponent.numerator)
    bounded(result)
    return result


def _small(base: Fraction, exponent: int) -> int:
    """An exponent with the same result: only its parity matters for 1, -1 and 0."""
    return exponent if abs(base) not in (0, 1) else min(exponent, 2 + exponent % 2)


def exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The rational root of a number, if it has one. A negative number has only odd roots."""
    if degree > _MOST_DEGREE or (value < 0 and degree % 2 == 0):
        return None
    sign = -1 if value < 0 else 1
    above, below = (_root(abs(n), degree) for n in (value.numerator, value.denominator))
    return None if above is None or below is None else sign * Fraction(above, below)


def _root(value: int, degree: int) -> int | None:
    with CONTEXT.workprec(value.bit_length() + 64):
        near = int(CONTEXT.nint(CONTEXT.root(value, degree)))
    return near if near**degree == value else None
