"""Whether a text has the form of a structure, without a model: one token for each byte."""

import json
from typing import Any

from llmchat.engines.guide.checking import bytes_tokenizer, limits
from llmchat.engines.guide.grammar import grammar_of
from llmchat.structure import Structure


def conforms(structure: Structure, text: str) -> bool | None:
    """Whether a text is a whole value of a structure; None if llguidance cannot tell.

    JSON may have any white space and any escapes; the names of an object come in the schema's
    order.
    """
    from llguidance import LLMatcher

    try:
        grammar = grammar_of(structure)
    except (ValueError, RecursionError):
        return None
    matcher = LLMatcher(bytes_tokenizer(), grammar, log_level=0, limits=limits())
    if matcher.is_error():
        return None
    return _accepts(matcher, text) or (structure.is_json and _accepts(matcher, _rewritten(text)))


def _accepts(matcher: Any, text: str) -> bool:
    """Whether a matcher at its start, where it is left, allows a text and an end behind it."""
    spelling = text.encode("utf-8", "surrogatepass")
    taken = matcher.try_consume_tokens(list(spelling))
    accepted = taken == len(spelling) and matcher.is_accepting()
    matcher.reset()
    return bool(accepted)


def _rewritten(text: str) -> str:
    """JSON in the style of our own answers; other text as it is."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
