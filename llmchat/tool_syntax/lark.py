"""Writes a grammar in llguidance's dialect of Lark, and names special tokens in one.

A mark such as `<tool_call>` is one special token in some vocabularies and plain text in others, so
grammars spell it as text, in rules of two fixed forms. `resolve` replaces them for a vocabulary.
"""

import json
import re
from collections.abc import Mapping

# The first lines of our grammars, as llama.cpp wants them too. Those of users are left as they are.
HEADER = "%llguidance {}\n// llmchat: tool calls"
_MARK_RULE = re.compile(r'^(mark_\d+): ("(?:[^"\\]|\\.)*")$', re.MULTILINE)
_TILL_RULE = re.compile(r'^(till_\d+)\[lazy\]: (.*) ("(?:[^"\\]|\\.)*")$', re.MULTILINE)


def resolve(grammar: str, special: Mapping[str, int]) -> str:
    """A grammar for a vocabulary in which these marks are special tokens, with their ids."""
    if not grammar.startswith(HEADER):
        return grammar

    def in_mark(match: re.Match[str]) -> str:
        token = special.get(json.loads(match[2]))
        return match[0] if token is None else f"{match[1]}: <[{token}]>"

    def in_till(match: re.Match[str]) -> str:
        token = special.get(json.loads(match[3]))
        return match[0] if token is None else f"{match[1]}: {match[2]} <[{token}]>"

    return _TILL_RULE.sub(in_till, _MARK_RULE.sub(in_mark, grammar))


def quoted(text: str) -> str:
    """A text as a literal."""
    return json.dumps(text, ensure_ascii=False)


def pattern(expression: str) -> str:
    """A regular expression as a literal."""
    on_one_line = expression.replace("\\\n", "\\n").replace("\n", "\\n")
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", on_one_line) + "/"


def choice(texts: list[str]) -> str:
    """Alternatives in brackets."""
    return texts[0] if len(texts) == 1 else f"({' | '.join(texts)})"


class Grammar:
    """Rules that are being written. Every method returns an expression for use in other rules."""

    def __init__(self, marks: tuple[str, ...]):
        self._marks = [mark for mark in marks if mark]
        self._split = re.compile("|".join(map(re.escape, sorted(self._marks, key=len)[::-1])))
        self._rules: dict[str, str] = {}
        self._known: dict[tuple[str, str], str] = {}

    def text(self, literal: str) -> str:
        """A text, in which marks may be tokens."""
        pieces, start = [], 0
        for match in self._split.finditer(literal) if self._marks else ():
            if match.start() > start:
                pieces.append(quoted(literal[start : match.start()]))
            pieces.append(self.rule("mark", quoted(match[0])))
            start = match.end()
        if literal[start:]:
            pieces.append(quoted(literal[start:]))
        return " ".join(pieces) or '""'

    def till(self, content: str, end: str) -> str:
        """Terminals as short as possible, up to a text and over it, which may be a token."""
        first = end if end in self._marks else self._split.split(end)[0] if self._marks else end
        if not first:
            first = self._split.findall(end)[0]
        rest = end.removeprefix(first)
        rule = self.rule("till", f"{content} {quoted(first)}", "[lazy]")
        return f"{rule} {self.text(rest)}" if rest else rule

    def lazy(self, content: str) -> str:
        """Terminals as short as possible."""
        return self.rule("lazy", content, "[lazy]")

    def rule(self, kind: str, content: str, attribute: str = "") -> str:
        """A rule of its own for an expression; the same one for the same expression."""
        key = (kind + attribute, content)
        if key not in self._known:
            self._known[key] = name = f"{kind}_{len(self._rules)}"
            self._rules[name] = f"{name}{attribute}: {content}"
        return self._known[key]

    def named(self, name: str, content: str) -> str:
        """A rule with a name of its own, by which other rules can refer to it."""
        self._rules[name] = f"{name}: {content}"
        return name

    def terminal(self, content: str) -> str:
        """A terminal for an expression of literals and patterns."""
        return self.rule("TERM", content)

    def written(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join([HEADER, f"start: {start}", *self._rules.values()])
