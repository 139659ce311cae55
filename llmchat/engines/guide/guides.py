"""The guides of a loaded model: its table of tokens, built once, and grammars that were used."""

import threading
from collections import OrderedDict
from typing import Any

from llmchat.engines.guide.checking import check, fault_of_matcher, limits
from llmchat.engines.guide.grammar import grammar_of
from llmchat.engines.guide.guide import TOO_COMPLEX, Guide
from llmchat.engines.guide.table import TokenTable
from llmchat.engines.guide.thought import Thoughts
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import Mismatch, UsageError, first_line
from llmchat.prompt import Prompt
from llmchat.settings.sampling import Sampling
from llmchat.structure import Structure

# Grammars that stay ready to use.
_MOST_GRAMMARS = 8


class Guides:
    """Makes the guide of an answer. count: the tokens that the model can choose from, 0 if unknown.

    The first structure builds the table, which takes up to some seconds for a large vocabulary.
    """

    def __init__(self, tokens: Tokenizer, count: int):
        self._tokens = tokens
        self._count = count
        self._lock = threading.Lock()
        self._table: TokenTable | None = None
        self._matchers: OrderedDict[Structure, Any] = OrderedDict()

    def guide(self, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int]) -> Guide | None:
        """The guide of an answer; None if any token may follow.

        Raises UsageError for a structure that cannot be enforced, and Mismatch for a tokenizer that
        cannot be guided.
        """
        marks, budget = prompt.thinking, sampling.think_budget
        thinks = marks is not None and (budget is not None or sampling.structure is not None)
        if sampling.structure is None and not thinks:
            return None
        matcher = None if sampling.structure is None else self._matcher(sampling.structure)
        if matcher is not None and prompt.begun:
            self._continue(matcher, prompt.begun)
        thoughts = Thoughts(marks, budget) if marks and thinks else None
        return Guide(self.table, matcher, thoughts, stop_ids)

    @property
    def table(self) -> TokenTable:
        with self._lock:
            if self._table is None:
                if not self._count:
                    raise Mismatch("the size of this model's vocabulary is unknown")
                self._table = TokenTable(self._tokens, self._count)
            return self._table

    def _continue(self, matcher: Any, text: str) -> None:
        """Let a structure go on after the text that an answer has already."""
        if not matcher.consume_tokens(self.table.ids(text)):
            raise UsageError(
                "the answer so far does not have the structure",
                "ask again instead of continuing it",
            )

    def _matcher(self, structure: Structure) -> Any:
        """A matcher at its start. A used grammar is copied, which is faster than building it."""
        if structure not in self._matchers:
            check(structure)
            self._matchers[structure] = self._build(structure)
            if len(self._matchers) > _MOST_GRAMMARS:
                self._matchers.popitem(last=False)
        self._matchers.move_to_end(structure)
        return self._matchers[structure].deep_copy()

    def _build(self, structure: Structure) -> Any:
        from llguidance import LLMatcher

        table, grammar = self.table.llguidance, grammar_of(structure, self.table.special)
        matcher = LLMatcher(table, grammar, log_level=0, limits=limits())
        if problem := fault_of_matcher(matcher):
            line = first_line(Exception(problem))
            raise Mismatch(f"this model cannot follow the structure: {line}", TOO_COMPLEX)
        return matcher
