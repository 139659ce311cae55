"""Regular expressions and choices as grammars in GBNF.

Source: llama.cpp, grammars/README.md and src/llama-grammar.cpp. `\\d`, `\\w` and `\\s` stand for
characters of ASCII only, so that what is written matches in every dialect.
"""

import re
from collections.abc import Callable, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from llmchat.errors import UsageError

# llama.cpp refuses more.
_MOST_REPETITIONS = 2000
_CLASSES = {
    op.CATEGORY_DIGIT: "0-9",
    op.CATEGORY_WORD: "a-zA-Z0-9\\x5F",
    op.CATEGORY_SPACE: "\\x20\\t\\n\\r\\x0B\\x0C",
}
_UNSUPPORTED = {
    op.ASSERT: "a lookaround",
    op.ASSERT_NOT: "a lookaround",
    op.GROUPREF: "a backreference",
    op.GROUPREF_EXISTS: "a condition",
    op.ATOMIC_GROUP: "an atomic group",
    op.POSSESSIVE_REPEAT: "a possessive quantifier",
}
_FLAGS = {re.IGNORECASE: "(?i)", re.MULTILINE: "(?m)"}
_HINT = "the engine `transformers` and vLLM take it"


def grammar_of_choices(choices: Sequence[str]) -> str:
    """A grammar of exactly these texts."""
    return f"root ::= {' | '.join(map(literal, choices))}\n"


def grammar_of_regex(pattern: str) -> str:
    """A grammar of texts that the pattern matches as a whole.

    Raises UsageError for a pattern that does not compile, or that is not regular.
    """
    try:
        tree = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"the regular expression cannot be used: {error}") from error
    for flag, written in _FLAGS.items():
        if tree.state.flags & flag:
            raise _unsupported(f"the flag {written}")
    dot = "." if tree.state.flags & re.DOTALL else "[^\\n]"
    return f"root ::= {_alternatives(_without_anchors(tree, _START, _END), dot)}\n"


def _unsupported(what: str) -> UsageError:
    return UsageError(f"llama.cpp's grammars cannot express {what} of a regular expression", _HINT)


_START, _END = (op.AT_BEGINNING, op.AT_BEGINNING_STRING), (op.AT_END, op.AT_END_STRING)


def _without_anchors(tree: Any, start: tuple[Any, ...], end: tuple[Any, ...]) -> list[Any]:
    """The items without `^` and `$` at their ends, which change nothing: the whole text matches.

    start and end: the anchors that are at an end here.
    """
    items = list(tree)
    while items and items[0][0] is op.AT and items[0][1] in start:
        items = items[1:]
    while items and items[-1][0] is op.AT and items[-1][1] in end:
        items = items[:-1]
    last = len(items) - 1
    return [
        _inside(code, value, start if n == 0 else (), end if n == last else ())
        for n, (code, value) in enumerate(items)
    ]


def _inside(code: Any, value: Any, start: tuple[Any, ...], end: tuple[Any, ...]) -> Any:
    """An item whose alternatives have no such anchors either."""
    if code is op.BRANCH:
        return code, (None, [_without_anchors(branch, start, end) for branch in value[1]])
    if code is op.SUBPATTERN:
        return code, (*value[:3], _without_anchors(value[3], start, end))
    return code, value


def _sequence(items: Sequence[Any], dot: str) -> str:
    return " ".join(_item(code, value, dot) for code, value in items) or '""'


def _alternatives(items: Sequence[Any], dot: str) -> str:
    """A sequence, without brackets around it if it is one choice between others."""
    if len(items) == 1 and items[0][0] is op.BRANCH:
        return " | ".join(_sequence(branch, dot) for branch in items[0][1][1])
    return _sequence(items, dot)


def _item(code: Any, value: Any, dot: str) -> str:
    if code in _UNSUPPORTED:
        raise _unsupported(_UNSUPPORTED[code])
    if code is op.AT:
        raise _unsupported("an anchor inside")
    return _WRITERS[code](value, dot)


def _repeat(value: Any, dot: str) -> str:
    least, most, items = value
    most = None if most is op.MAXREPEAT else most
    if max(least, most or 0) > _MOST_REPETITIONS:
        raise UsageError(
            f"llama.cpp's grammars repeat at most {_MOST_REPETITIONS:,} times, not"
            f" {max(least, most or 0):,}"
        )
    suffixes = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    times = f"{{{least},{'' if most is None else most}}}"
    return f"({_alternatives(items, dot)}){suffixes.get((least, most), times)}"


def _group(value: Any, dot: str) -> str:
    _, added, removed, items = value
    if removed or added & ~re.DOTALL:
        raise _unsupported("flags inside")
    dot = "." if added else dot
    return f"({_alternatives(items, dot)})"


def _set(items: Any, dot: str) -> str:
    negated = items[0][0] is op.NEGATE
    parts = [_part(code, value) for code, value in items[1 if negated else 0 :]]
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _part(code: Any, value: Any) -> str:
    if code is op.LITERAL:
        return _char(value)
    if code is op.RANGE:
        return f"{_char(value[0])}-{_char(value[1])}"
    if value not in _CLASSES:
        raise _unsupported("\\D, \\W or \\S")
    return _CLASSES[value]


def _char(code: int) -> str:
    """A character of a literal or a set."""
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def literal(text: str) -> str:
    """A text as a grammar writes it."""
    return f'"{"".join(_char(ord(character)) for character in text)}"'


_WRITERS: dict[Any, Callable[[Any, str], str]] = {
    op.LITERAL: lambda value, dot: literal(chr(value)),
    op.NOT_LITERAL: lambda value, dot: f"[^{_char(value)}]",
    op.ANY: lambda value, dot: dot,
    op.IN: _set,
    op.BRANCH: lambda value, dot: f"({_alternatives([(op.BRANCH, value)], dot)})",
    op.SUBPATTERN: _group,
    op.MAX_REPEAT: _repeat,
    op.MIN_REPEAT: _repeat,
}
