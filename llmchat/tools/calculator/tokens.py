"""Split an expression into numbers, names and signs."""

import re
from fractions import Fraction

from msgspec import Struct

from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError

_SPELLINGS = str.maketrans(
    {
        "×": "*", "·": "*", "⋅": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "µ": "μ",
        "[": " ", "]": " ", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->", "²": "^2 ", "³": "^3 ",
        "\n": " ", "\t": " ", "\u00a0": " ", "\u202f": " ",
    }
)  # fmt: skip
_REST = re.compile(
    r"(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+"
    r"|(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>°?[^\W\d_]\w*|°)"
    r"|(?P<sign>\*\*|//|->|[<>=!]=|[-+*/^!(),<>=√%])|(?P<space>\s+)"
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,])")
# `1/2 cup` is half a cup, but `10 km/2 h` is a speed.
_PORTION = re.compile(r"(?P<portion>[0-9]{1,9}/[1-9][0-9]{0,8})(?= ?[^\W\d_])")
_MOST_DIGITS = 2000


class Token(Struct, frozen=True):
    """kind: `number`, `name`, `sign` or `end`. number: the value of a number."""

    kind: str
    text: str
    number: Fraction = Fraction(0)


END = Token("end", "the end")


def tokens_of(expression: str) -> list[Token]:
    """The tokens of an expression, and END. Raises ToolError for a sign that is not known."""
    text = expression.translate(_SPELLINGS).replace("math.", "").strip().removesuffix("=")
    found: list[Token] = []
    # For each open bracket, whether a comma in it separates the arguments of a function.
    calls = [False]
    place = 0
    while place < len(text):
        match = _next(text, place, calls[-1], found[-1].text if found else "")
        place = match.end()
        if match.lastgroup == "space":
            continue
        token = _token(match)
        if token.text == "(":
            calls.append(bool(found) and found[-1].kind == "name")
        elif token.text == ")" and len(calls) > 1:
            calls.pop()
        found.append(token)
    return [*found, END]


def _next(text: str, place: int, in_call: bool, before: str) -> re.Match[str]:
    portion = None if before in ("^", "**", "/") else _PORTION.match(text, place)
    thousands = None if in_call else _THOUSANDS.match(text, place)
    match = portion or thousands or _REST.match(text, place)
    if match is None:
        raise ToolError(f"unexpected `{excerpt(text[place])}`; leave it out")
    return match


def _token(match: re.Match[str]) -> Token:
    kind = match.lastgroup or "number"
    if kind == "portion":
        return Token("number", match[0], Fraction(match[0]))
    if kind != "number":
        return Token(kind, match[0])
    return Token(kind, match[0], _number(match[0].replace(",", "").replace("_", "").lower()))


def _number(digits: str) -> Fraction:
    mantissa, _, exponent = digits.partition("e")
    if digits[:2] in ("0x", "0b", "0o"):
        return Fraction(int(digits, 0))
    if len(mantissa) > _MOST_DIGITS or (exponent and abs(int(exponent[:9])) > _MOST_DIGITS):
        raise ToolError(f"`{excerpt(digits)}` has too many digits")
    return Fraction(digits)
