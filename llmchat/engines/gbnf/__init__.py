"""Structures as llama.cpp's own grammars (GBNF), and what its converter of JSON Schemas enforces.

A build of llama.cpp can have llguidance in it; this package is for servers whose build is unknown.
Nothing is approximated: what llama.cpp would leave out is refused by name.
"""

from llmchat.engines.gbnf.regular import grammar_of_choices, grammar_of_regex, literal
from llmchat.engines.gbnf.schema import check_converted

__all__ = ["check_converted", "grammar_of_choices", "grammar_of_regex", "literal"]
