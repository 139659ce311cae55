"""Drives the mask of a structure with texts, without a model: one token for each byte."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from llguidance import LLMatcher

from llmchat.engines.guide.checking import bytes_tokenizer, check, limits
from llmchat.engines.guide.grammar import grammar_of
from llmchat.structure import Structure, from_grammar, from_schema

# Orders of the names of an object that are tried, and of values within a list.
_MOST_NAMES, _MOST_LISTS = 4, 2000


class SchemaMatcher:
    """The mask of a schema. Raises UsageError for one that llmchat refuses."""

    def __init__(self, schema: Any):
        self._start(from_schema(schema))

    @classmethod
    def of_grammar(cls, lark: str) -> "SchemaMatcher":
        made = cls.__new__(cls)
        made._start(from_grammar(lark))
        return made

    def _start(self, structure: Structure) -> None:
        check(structure)
        tokenizer = bytes_tokenizer()
        self._matcher = LLMatcher(tokenizer, grammar_of(structure), log_level=0, limits=limits())

    def accepts_text(self, text: str) -> bool:
        """Whether the mask allows a text, byte for byte, and an end behind it."""
        matcher, spelling = self._matcher.deep_copy(), text.encode("utf-8", "surrogatepass")
        return (
            matcher.try_consume_tokens(list(spelling)) == len(spelling) and matcher.is_accepting()
        )

    def accepts(self, value: Any) -> bool:
        """Whether the mask allows any spelling of a value."""
        return any(map(self.accepts_text, spellings(value)))


def spellings(value: Any) -> Iterator[str]:
    """Ways to write a value as JSON on one line: orders of names, escapes, kinds of numbers."""
    if isinstance(value, dict):
        yield from _objects(value)
    elif isinstance(value, list):
        items = itertools.product(*(list(spellings(item)) for item in value))
        yield from (f"[{', '.join(each)}]" for each in itertools.islice(items, _MOST_LISTS))
    elif isinstance(value, float):
        yield from (json.dumps(value), f"{value:.0f}" if value.is_integer() else f"{value:f}")
    else:
        yield from (json.dumps(value, ensure_ascii=False), json.dumps(value))


def _objects(value: dict[str, Any]) -> Iterator[str]:
    pairs = [[(name, text) for text in spellings(item)] for name, item in value.items()]
    for order in itertools.permutations(pairs) if len(pairs) <= _MOST_NAMES else [tuple(pairs)]:
        for each in itertools.product(*order):
            for ascii_only in (False, True):
                named = (f"{json.dumps(n, ensure_ascii=ascii_only)}: {text}" for n, text in each)
                yield f"{{{', '.join(named)}}}"
