"""Read an expression and calculate it on the way: precedence climbing, without eval.

Loosest first: comparison, conversion (`to`), `+ -`, `* / // % mod of per`, sign, unit, `^`, `! %`.
"""

import operator
from collections.abc import Callable
from fractions import Fraction

from llmchat.errors import did_you_mean
from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError
from llmchat.tools.calculator import units
from llmchat.tools.calculator.functions import CONSTANTS, FUNCTIONS, factorial, square_root
from llmchat.tools.calculator.numbers import Percent, Value, bounded, too_large, whole
from llmchat.tools.calculator.tokens import END, Token, tokens_of

_ONE = Fraction(1)
_LONGEST = 1000
_DEEPEST = 50
_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SUMS = {"+": units.add, "-": units.subtract}
_PRODUCTS = {
    "*": units.multiply, "of": units.multiply, "/": units.divide, "per": units.divide,
    "//": units.floor_divide, "%": units.remainder, "mod": units.remainder,
}  # fmt: skip
_CONVERSIONS = ("to", "in", "as", "->")
_KEYWORDS = {"to", "as", "of", "per", "mod"}
_BASES = {"hex": "#x", "binary": "#b", "bin": "#b", "octal": "#o", "oct": "#o"}


def calculate(expression: str) -> Value | bool | str:
    """The value of an expression; a string for another base. Raises ToolError."""
    if len(expression) > _LONGEST:
        raise ToolError(f"the expression is too long; the limit is {_LONGEST:,} characters")
    parser = _Parser(tokens_of(expression))
    try:
        value = parser.whole_expression()
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (OverflowError, MemoryError):
        raise too_large() from None
    parser.expect("the end")
    return value


class _Parser:
    def __init__(self, tokens: list[Token]):
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    @property
    def _now(self) -> Token:
        return self._tokens[self._place]

    @property
    def _after(self) -> Token:
        return self._tokens[self._place + 1] if self._now is not END else END

    def _take(self) -> Token:
        token = self._now
        self._place += token is not END
        return token

    def _taken(self, *texts: str) -> str:
        """The text of the next token if it is one of these, which is then read."""
        return self._take().text if self._now.text in texts else ""

    def expect(self, text: str) -> None:
        if self._now.text != text:
            raise self._unexpected(f"instead of {text if text == 'the end' else f'`{text}`'}")
        self._take()

    def _unexpected(self, more: str = "") -> ToolError:
        if self._now is END:
            return ToolError(f"the expression ends too early {more}".strip())
        return ToolError(f"unexpected `{excerpt(self._now.text)}` {more}".strip())

    def whole_expression(self) -> Value | bool | str:
        left = self._conversion()
        if base := self._taken(*_BASES):
            return format(whole(left, base), _BASES[base])
        sign = self._taken(*_COMPARISONS)
        if not sign:
            return left
        return units.compare(left, self._conversion(), _COMPARISONS[sign])

    def _conversion(self) -> Value:
        value = self._sum()
        while self._taken(*_CONVERSIONS) and self._now.text not in _BASES:
            value = units.convert(value, self._target())
        return value

    def _target(self) -> Value:
        return units.quantity(_ONE, "percent") if self._taken("%") else self._product()

    def _sum(self) -> Value:
        value = self._product()
        while sign := self._taken(*_SUMS):
            value = _SUMS[sign](value, self._product())
        return value

    def _product(self) -> Value:
        value = self._signed()
        while sign := self._taken(*_PRODUCTS):
            value = _PRODUCTS[sign](value, self._signed())
        return value

    def _signed(self) -> Value:
        self._deeper()
        sign = self._taken("-", "+", "√")
        if not sign:
            value = self._with_units(self._power())
        elif sign == "√":
            value = square_root(self._signed())
        else:
            value = units.negative(self._signed()) if sign == "-" else self._signed()
        self._depth -= 1
        return value

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ToolError("the expression is nested too deeply")

    def _with_units(self, value: Value) -> Value:
        """`5 km`, `3 kg m^2`: a unit binds more tightly than a product."""
        while self._is_unit():
            name = self._take().text
            if name in CONSTANTS or (name in FUNCTIONS and self._now.text == "("):
                raise ToolError(f"write `*` before `{name}`")
            if self._now.text in ("^", "**") or units.is_quantity(value):
                value = units.multiply(value, self._raised(units.quantity(_ONE, name)))
            else:
                value = units.quantity(value, name)
        if units.is_quantity(value) and self._now.kind == "number":
            # 6 feet 2 inches
            value = units.add(value, self._with_units(self._power()))
        return value

    def _is_unit(self) -> bool:
        """Whether a unit follows. `in` is the inch unless a unit to convert to follows it."""
        if self._now.text == "in":
            return self._after.kind != "name" or self._after.text in (*_KEYWORDS, "in")
        return self._now.kind == "name" and self._now.text not in _KEYWORDS

    def _power(self) -> Value:
        return self._raised(self._postfix())

    def _raised(self, base: Value) -> Value:
        if not self._taken("^", "**"):
            return base
        self._deeper()
        minus = bool(self._taken("-"))
        exponent = self._raised(self._postfix())
        self._depth -= 1
        return units.power(base, -exponent if minus else exponent)

    def _postfix(self) -> Value:
        value = self._primary()
        while True:
            if self._taken("!"):
                value = factorial(value)
            elif self._now.text == "%" and not self._begins_a_value(self._after):
                self._take()
                if not isinstance(value, Fraction):
                    raise ToolError("a percentage is an exact number without a unit")
                value = Percent(bounded(value / 100))
            else:
                return value

    def _begins_a_value(self, token: Token) -> bool:
        """Whether `%` before this token is the remainder and not a percentage."""
        named = token.kind == "name" and token.text not in _KEYWORDS and token.text != "in"
        return named or token.kind == "number" or token.text in ("(", "√")

    def _primary(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return bounded(token.number)
        if token.text == "(":
            value = self._conversion()
            self.expect(")")
            return value
        if token.kind == "name" and token.text not in _KEYWORDS:
            return self._named(token.text)
        self._place -= token is not END
        raise self._unexpected()

    def _named(self, name: str) -> Value:
        if self._now.text == "(":
            return self._call(name)
        if name in FUNCTIONS and name != "min":
            raise ToolError(f"write brackets after `{name}`")
        return CONSTANTS[name]() if name in CONSTANTS else units.quantity(_ONE, name)

    def _call(self, name: str) -> Value:
        if name not in FUNCTIONS:
            hint = did_you_mean(name, [*FUNCTIONS]) or f"the functions are {', '.join(FUNCTIONS)}"
            raise ToolError(f"there is no function `{excerpt(name)}`; {hint}")
        function, least, most = FUNCTIONS[name]
        values = self._arguments()
        if not least <= len(values) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ToolError(f"{name} takes {wanted} values, not {len(values)}")
        return units.applied(lambda: function(*values))

    def _arguments(self) -> list[Value]:
        self.expect("(")
        if self._taken(")"):
            return []
        values = [self._sum()]
        while self._taken(","):
            values.append(self._sum())
        self.expect(")")
        return values
