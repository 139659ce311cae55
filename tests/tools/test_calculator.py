"""The tool `calculator`: values, errors of one line, and properties against Python's numbers."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat.tools.calculator import Calculator
from llmchat.tools.calculator.parser import calculate
from llmchat.tools.running import Finished, run


def ask(expression: str) -> Finished:
    return run(Calculator(), {"expression": expression}, timeout_s=60)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("2+2", "4"),
        ("2^64 - 1", "18446744073709551615"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "1/3 ≈ 0.333333333333333"),
        ("1/7 + 1/11", "18/77 ≈ 0.233766233766234"),
        ("-2^2", "-4"),
        ("2^3^2", "512"),
        ("2**-3", "0.125"),
        ("1 / 2 / 4", "0.125"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("10 % 3", "1"),
        ("7.5 mod 2", "1.5"),
        ("20!", "2432902008176640000"),
        ("3 × 4 ÷ 2 − 1", "5"),
        ("5² + √16", "29"),
        ("1,234.5 * 2", "2469"),
        ("1_000 + .5", "1000.5"),
        ("max(1,234)", "234"),
        ("sum([1, 2, 3])", "6"),
        ("math.sqrt(9)", "3"),
        ("12 * 4 =", "48"),
        ("0xff + 1", "256"),
        ("255 to hex", "0xff"),
        ("5 in binary", "0b101"),
    ],
)
def test_arithmetic(expression: str, text: str) -> None:
    assert ask(expression).text == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("15% of 80", "12"),
        ("80 + 15%", "92"),
        ("80 - 15%", "68"),
        ("20% + 5%", "25% = 0.25"),
        ("100% - 20%", "80% = 0.8"),
        ("200 * 5%", "10"),
        ("3/4 to percent", "75 %"),
    ],
)
def test_percentages(expression: str, text: str) -> None:
    assert ask(expression).text == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("sqrt(16/9)", "4/3 ≈ 1.33333333333333"),
        ("sqrt(2)", "≈ 1.4142135623731"),
        ("8^(2/3)", "4"),
        ("cbrt(-8)", "-2"),
        ("log2(8)", "3"),
        ("log(100, 10)", "2"),
        ("ln(e)", "1"),
        ("sin(pi)", "0"),
        ("cos(60 deg)", "0.5"),
        ("asin(1) / pi", "≈ 0.5"),
        ("round(-2.567, 2)", "-2.57"),
        ("round(2.5)", "3"),
        ("floor(-2.5) + ceil(2.1)", "0"),
        ("comb(49, 6)", "13983816"),
        ("perm(5, 2) + gcd(12, 18) + lcm(4, 6)", "38"),
        ("mean(3, 4, 8)", "5"),
        ("median(1, 2, 3, 4)", "2.5"),
        ("e^(10^5)", "≈ 2.80666336042612e+43429"),
        ("1^(10^4000)", "1"),
    ],
)
def test_functions(expression: str, text: str) -> None:
    assert ask(expression).text == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("5 in in cm", "12.7 cm"),
        ("98.6 fahrenheit in celsius", "37 °C"),
        ("100 C to F", "212 °F"),
        ("10 km / 2 h", "5 km/h"),
        ("60 miles per hour * 2 hours", "120 mi"),
        ("60 km/h * 30 min", "30 km"),
        ("3 kg * 9.81 m/s^2 to N", "29.43 N"),
        ("70 kg / (1.75 m)^2", "160/7 kg/m^2 ≈ 22.8571428571429 kg/m^2"),
        ("6 feet 2 inches to cm", "187.96 cm"),
        ("sqrt(9 m^2)", "3 m"),
        ("1/2 cup to ml", "118.29411825 ml"),
        ("1 m / 1 km", "0.001"),
        ("1 KB to byte", "1000 B"),
        ("2 GiB to bytes", "2147483648 B"),
        ("c to m/s", "299792458 m/s"),
        ("3 weeks to days", "21 d"),
        ("round(2.345 km, 1)", "2.3 km"),
        ("5 min to s", "300 s"),
    ],
)
def test_units(expression: str, text: str) -> None:
    assert ask(expression).text == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("9.9 > 9.11", "true"),
        ("0.5 = 1/2", "true"),
        ("5 km < 3 miles", "false"),
        ("2 != 2", "false"),
    ],
)
def test_comparisons(expression: str, text: str) -> None:
    assert ask(expression).text == text


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("9**9**9", "the result is too large; exact numbers have at most 4,000 digits"),
        ("9^9^9^9^9", "the result is too large; exact numbers have at most 4,000 digits"),
        ("(10^4000)^(10^4000)", "the result is too large; exact numbers have at most 4,000 digits"),
        ("e^(10^8)", "the result is too large; exact numbers have at most 4,000 digits"),
        ("(1/3)^10000", "the result is too large; exact numbers have at most 4,000 digits"),
        ("99999999!", "the result is too large; exact numbers have at most 4,000 digits"),
        ("5!!!!", "the result is too large; exact numbers have at most 4,000 digits"),
        ("comb(10^6, 5*10^5)", "the result is too large; exact numbers have at most 4,000 digits"),
        ("perm(10^9, 10^8)", "the result is too large; exact numbers have at most 4,000 digits"),
        ("round(pi, 10^9)", "round takes at most 1,000 decimal places"),
        ("1e9999999999", "`1e9999999999` has too many digits"),
        ("1" * 999, ""),
        ("1+" * 600 + "1", "the expression is too long; the limit is 1,000 characters"),
        ("(" * 300 + "1" + ")" * 300, "the expression is nested too deeply"),
        ("-" * 900 + "1", "the expression is nested too deeply"),
        ("2^" * 400 + "1", "the expression is nested too deeply"),
        ("1/0", "division by zero"),
        ("0^-1", "division by zero"),
        ("5 mod 0", "division by zero"),
        ("sqrt(-1)", "a root of a negative number is not a real number"),
        ("asin(2)", "asin of this number is not a real number"),
        ("ln(0)", "the logarithm of a number that is not positive is not a real number"),
        ("log(100)", "log needs a base: log(x, 10); or write ln(x), log10(x) or log2(x)"),
        ("tan(pi/2)", "tan is not defined there"),
        ("2 +", "the expression ends too early"),
        ("", "the expression ends too early"),
        ("(2", "the expression ends too early instead of `)`"),
        ("2)", "unexpected `)` instead of the end"),
        ("2pi", "write `*` before `pi`"),
        ("sin 30", "write brackets after `sin`"),
        ("min()", "min takes 1 to 99 values, not 0"),
        ("flor(2)", "there is no function `flor`; did you mean `floor` or"),
        ("$5 * 3", "unexpected `$`; leave it out"),
        ("5 km + 3 s", "km and s do not go together"),
        ("5 km + 3", "km and a number do not go together"),
        ("1 m to in in in", "m and in^3 do not go together"),
        ("20 degC + 5 degC", "temperatures are added or multiplied in kelvin: convert them first"),
        ("2^(1 km)", "an exponent has no unit"),
        ("(1 m)^1000", "the exponent of a unit is a fraction of at most 20"),
        ("__import__('os').system('x')", "unexpected `_`; leave it out"),
        ("\x1b[31m", "unexpected `�`; leave it out"),
        ("open(2)", "there is no function `open`; did you mean"),
        ("5 furlonk", "there is no unit, function or constant `furlonk`; did you mean `furlong`"),
    ],
)
def test_what_cannot_be_calculated_is_one_line(expression: str, told: str) -> None:
    finished = ask(expression)
    assert finished.error.startswith(told) and bool(told) == bool(finished.error)
    assert not finished.details and "\n" not in finished.error


def test_a_number_of_many_digits_is_rounded() -> None:
    assert ask("10^4000").text == "≈ 1e+4000"
    assert ask("10^300").text == "1" + "0" * 300


NUMBERS = st.fractions(-(10**6), 10**6, max_denominator=1000)


@given(NUMBERS, NUMBERS, st.sampled_from(["+", "-", "*", "/", "//", "mod", "<", ">="]))
def test_two_numbers_give_what_fractions_give(a: Fraction, b: Fraction, sign: str) -> None:
    python = {"mod": "%"}.get(sign, sign)
    try:
        expected = eval(f"a {python} b", {"a": a, "b": b})
    except ZeroDivisionError:
        assert ask(f"({a}) {sign} ({b})").error == "division by zero"
        return
    assert calculate(f"({a}) {sign} ({b})") == expected


TREES = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(inner, st.integers(0, 3)).map(lambda t: f"({t[0]})**{t[1]}"),
    ),
    max_leaves=12,
)


@given(TREES)
def test_a_tree_of_operations_gives_what_python_gives(expression: str) -> None:
    assert calculate(expression) == eval(expression)


@given(st.integers(0, 10**30), st.integers(2, 7))
def test_roots_of_powers_are_exact(number: int, degree: int) -> None:
    assert calculate(f"root({number**degree}, {degree})") == number


@given(st.floats(0.001, 1000))
def test_functions_agree_with_floats(x: float) -> None:
    for name in ("sqrt", "ln", "sin", "atan", "tanh"):
        expected = getattr(math, "log" if name == "ln" else name)(x)
        assert math.isclose(
            float(calculate(f"{name}({x!r})")), expected, rel_tol=1e-9, abs_tol=1e-9
        )


UNITS = st.sampled_from(["m", "km", "inch", "mile", "furlong", "light_year", "parsec", "angstrom"])


@given(st.fractions(0, 1000, max_denominator=50), UNITS, UNITS)
def test_a_conversion_there_and_back_changes_nothing(number: Fraction, one: str, two: str) -> None:
    assert calculate(f"({number}) {one} to {two} to {one}").magnitude == number


WORDS = [
    *"()+-*/^%!,√=<",
    *("2", "0.5", "1e9", "to", "in", "of", "km", "s", "degC", "pi", "hex"),
    *("sqrt(", "max(", "log(", "round(", "comb("),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_ends_in_a_value_or_in_one_line(expression: str) -> None:
    finished = ask(expression)
    assert bool(finished.text) != bool(finished.error) and not finished.details, finished.details
    assert "stopped after" not in finished.error
