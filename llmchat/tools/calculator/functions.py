"""The functions and constants of the calculator."""

import math
from collections.abc import Callable
from fractions import Fraction
from statistics import median

from llmchat.tools import ToolError
from llmchat.tools.calculator import units
from llmchat.tools.calculator.numbers import (
    CONTEXT,
    MOST_FACTORIAL,
    Value,
    bounded,
    exact_root,
    not_real,
    power,
    real,
    snapped,
    too_large,
    whole,
)

CONSTANTS: dict[str, Callable[[], Value]] = {
    "pi": lambda: +CONTEXT.pi,
    "π": lambda: +CONTEXT.pi,
    "e": lambda: +CONTEXT.e,
    "tau": lambda: 2 * CONTEXT.pi,
    "phi": lambda: +CONTEXT.phi,
}
_HALF = Fraction(1, 2)


def factorial(value: Value) -> Fraction:
    number = whole(value, "a factorial")
    if number < 0:
        raise ToolError("a negative number has no factorial")
    if number > MOST_FACTORIAL:
        raise too_large()
    return Fraction(math.factorial(number))


def square_root(value: Value) -> Value:
    return units.power(value, _HALF)


def _root(value: Value, degree: Value) -> Value:
    number = whole(degree, "the degree of a root")
    if number < 1:
        raise ToolError("the degree of a root must be 1 or more")
    if isinstance(value, Fraction) and value < 0 and number % 2:
        exact = exact_root(value, number)
        return exact if exact is not None else -power(-value, Fraction(1, number))
    return units.power(value, Fraction(1, number))


def _log(value: Value, base: Value | None = None) -> Value:
    if base is None:
        raise ToolError("log needs a base: log(x, 10); or write ln(x), log10(x) or log2(x)")
    if base <= 0 or base == 1:
        raise ToolError("the base of a logarithm must be positive and not 1")
    return snapped(_ln(value) / _ln(base))


def _ln(value: Value) -> Value:
    if value <= 0:
        raise not_real("the logarithm of a number that is not positive")
    return snapped(CONTEXT.ln(real(value)))


def _exp(value: Value) -> Value:
    return Fraction(1) if value == 0 else power(+CONTEXT.e, value)


def _of_angle(name: str) -> Callable[[Value], Value]:
    def function(value: Value) -> Value:
        angle = real(units.in_radians(value))
        if name == "tan" and snapped(CONTEXT.cos(angle)) == 0:
            raise ToolError("tan is not defined there")
        return snapped(getattr(CONTEXT, name)(angle))

    return function


def _inexact(name: str) -> Callable[[Value], Value]:
    def function(value: Value) -> Value:
        result = getattr(CONTEXT, name)(real(value))
        if not isinstance(result, CONTEXT.mpf):
            raise not_real(f"{name} of this number")
        return snapped(result)

    return function


def _keeps_unit(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of numbers, applied to the number of a quantity."""

    def kept(value: Value, *rest: Value) -> Value:
        if not units.is_quantity(value):
            return function(value, *rest)
        return units.with_magnitude(value, function(value.magnitude, *rest))

    return kept


def _round(value: Value, digits: Value = Fraction(0)) -> Value:
    """Half away from zero, as taught in school."""
    places = whole(digits, "the count of decimal places")
    if abs(places) > 1000:
        raise ToolError("round takes at most 1,000 decimal places")
    scale = Fraction(10) ** places
    scaled = value * scale
    rounded = Fraction(_floor(abs(scaled) + _HALF)) / scale
    return -rounded if value < 0 else rounded


def _floor(value: Value) -> Fraction:
    return Fraction(
        int(CONTEXT.floor(value)) if isinstance(value, CONTEXT.mpf) else math.floor(value)
    )


def _choose(count: Value, chosen: Value) -> Value:
    n, k = whole(count, "comb"), whole(chosen, "comb")
    if n < 0 or k < 0:
        raise ToolError("comb needs numbers of 0 or more")
    if min(k, n - k) * n.bit_length() > 20_000:
        raise too_large()
    return bounded(Fraction(math.comb(n, k)))


def _permutations(count: Value, chosen: Value) -> Value:
    n, k = whole(count, "perm"), whole(chosen, "perm")
    if n < 0 or k < 0:
        raise ToolError("perm needs numbers of 0 or more")
    if k <= n and k * n.bit_length() > 20_000:
        raise too_large()
    return bounded(Fraction(math.perm(n, k)))


def _sum(*values: Value) -> Value:
    total = values[0]
    for value in values[1:]:
        total = units.add(total, value)
    return total


def _mean(*values: Value) -> Value:
    return _sum(*values) / Fraction(len(values))


# A function, and the least and the most values that it takes.
FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int]] = {
    "sqrt": (square_root, 1, 1),
    "cbrt": (lambda value: _root(value, Fraction(3)), 1, 1),
    "root": (_root, 2, 2),
    "pow": (units.power, 2, 2),
    "exp": (_exp, 1, 1),
    "ln": (_ln, 1, 1),
    "log": (_log, 1, 2),
    "log10": (lambda value: _log(value, Fraction(10)), 1, 1),
    "log2": (lambda value: _log(value, Fraction(2)), 1, 1),
    **{name: (_of_angle(name), 1, 1) for name in ("sin", "cos", "tan")},
    **{name: (_inexact(name), 1, 1) for name in ("asin", "acos", "atan", "sinh", "cosh", "tanh")},
    "abs": (abs, 1, 1),
    "round": (_keeps_unit(_round), 1, 2),
    "floor": (_keeps_unit(_floor), 1, 1),
    "ceil": (_keeps_unit(lambda value: -_floor(-value)), 1, 1),
    "factorial": (factorial, 1, 1),
    "comb": (_choose, 2, 2),
    "perm": (_permutations, 2, 2),
    "gcd": (lambda *n: Fraction(math.gcd(*(whole(one, "gcd") for one in n))), 2, 99),
    "lcm": (lambda *n: bounded(Fraction(math.lcm(*(whole(one, "lcm") for one in n)))), 2, 99),
    "mod": (units.remainder, 2, 2),
    "min": (lambda *values: min(values), 1, 99),
    "max": (lambda *values: max(values), 1, 99),
    "sum": (_sum, 1, 99),
    "mean": (_mean, 1, 99),
    "average": (_mean, 1, 99),
    "median": (lambda *values: median(values), 1, 99),
}
