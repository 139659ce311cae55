"""A matcher for the part of llama.cpp's grammars (GBNF) that llmchat writes: one rule, `root`."""

import functools
import re
from typing import Any

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{\d+,\d*\}|[().|*+?]')
_ESCAPES = re.compile(r"\\(?:x([0-9A-F]{2})|u([0-9A-F]{4})|U([0-9A-F]{8})|(.))")
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


def matches(grammar: str, text: str) -> bool:
    """Whether a grammar accepts a whole text."""
    tree = _tree(grammar)
    return len(text) in _ends(tree, text, frozenset({0}))


@functools.lru_cache(maxsize=64)
def _tree(grammar: str) -> Any:
    head, _, body = grammar.partition("::=")
    assert head.strip() == "root" and body.endswith("\n") and "\n" not in body[:-1]
    assert not _TOKENS.sub("", body).strip(), "something that is no token"
    tree, rest = _alternatives(_TOKENS.findall(body))
    assert not rest
    return tree


def _alternatives(tokens: list[str]) -> tuple[Any, list[str]]:
    branches: list[list[Any]] = [[]]
    while tokens and tokens[0] != ")":
        token, *tokens = tokens
        if token == "|":
            branches.append([])
        elif token == "(":
            inner, tokens = _alternatives(tokens)
            assert tokens[0] == ")"
            tokens = tokens[1:]
            branches[-1].append(inner)
        elif token in "*+?" or token[0] == "{":
            branches[-1].append(("repeat", branches[-1].pop(), *_times(token)))
        else:
            branches[-1].append(("token", token))
    return ("any", branches), tokens


def _times(token: str) -> tuple[int, int]:
    if token in "*+?":
        return {"*": (0, 99), "+": (1, 99), "?": (0, 1)}[token]
    least, _, most = token[1:-1].partition(",")
    return int(least), int(most or 99)


def _ends(tree: Any, text: str, starts: frozenset[int]) -> frozenset[int]:
    """Where a match can end that begins at one of these places."""
    match tree:
        case ("any", branches):
            found: frozenset[int] = frozenset()
            for branch in branches:
                ends = starts
                for each in branch:
                    ends = _ends(each, text, ends)
                found |= ends
            return found
        case ("repeat", inner, least, most):
            return _repeated(inner, text, starts, least, most)
        case ("token", token) if token[0] == '"':
            literal = _plain(token[1:-1])
            return frozenset(n + len(literal) for n in starts if text.startswith(literal, n))
        case ("token", token):
            return frozenset(n + 1 for n in starts if n < len(text) and _in_set(token, text[n]))
    raise AssertionError(tree)


def _repeated(
    inner: Any, text: str, starts: frozenset[int], least: int, most: int
) -> frozenset[int]:
    ends, found = starts, starts if least == 0 else frozenset()
    for count in range(1, min(most, least + len(text) + 1) + 1):
        ends = _ends(inner, text, ends)
        found |= ends if count >= least else frozenset()
    return found


def _plain(text: str) -> str:
    return _ESCAPES.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    return chr(int(digits, 16)) if digits else _NAMED.get(match[4], match[4])


def _in_set(token: str, character: str) -> bool:
    if token == ".":
        return True
    inside = token[1:-1]
    negated = inside.startswith("^")
    pieces = re.findall(r"\\(?:x..|u.{4}|U.{8}|.)|[^\\]", inside[1:] if negated else inside)
    codes = [_plain(piece) for piece in pieces]
    found, place = False, 0
    while place < len(codes):
        last = (
            place + 2
            if codes[place + 1 : place + 2] == ["-"] and pieces[place + 1] == "-"
            else place
        )
        found |= codes[place] <= character <= codes[last]
        place = last + 1
    return found != negated
