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
    matcher = _matcher(structure)
    if matcher is None:
        return None
    return _accepts(matcher, text) or (structure.is_json and _accepts(matcher, _rewritten(text)))


def begins(structure: Structure, text: str) -> bool | None:
    """Whether a text can be continued to a whole value, as our own engines write it."""
    matcher = _matcher(structure)
    return None if matcher is None else _taken(matcher, text) == len(_spelling(text))


def _matcher(structure: Structure) -> Any:
    """A matcher at its start; None for a structure that llguidance cannot compile."""
    from llguidance import LLMatcher

    try:
        grammar = grammar_of(structure)
    except (ValueError, RecursionError):
        return None
    matcher = LLMatcher(bytes_tokenizer(), grammar, log_level=0, limits=limits())
    return None if matcher.is_error() else matcher


def _accepts(matcher: Any, text: str) -> bool:
    """Whether a matcher at its start, where it is left, allows a text and an end behind it."""
    accepted = _taken(matcher, text) == len(_spelling(text)) and matcher.is_accepting()
    matcher.reset()
    return bool(accepted)


def _taken(matcher: Any, text: str) -> int:
    """The bytes of a text that the matcher allows from its start."""
    taken: int = matcher.try_consume_tokens(list(_spelling(text)))
    return taken


def _spelling(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _rewritten(text: str) -> str:
    """JSON in the style of our own answers; other text as it is."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
