"""How many tokens a text has, without counting all of one that is certainly too long.

Counting costs time and memory in proportion to the text. A text for which a part is already more than fits need not be counted to its end.
"""

from llmchat.engines import Counter

# Characters a token has at most in ordinary text: the part that is counted first has so many for each token that fits.
_CHARACTERS = 8
# The first tokens of a text may be a few more than the same characters give inside the whole.
_MARGIN, _FEW = 1.1, 64
# Up to so many times what fits, counting exactly costs little and gives an exact message.
_FAR = 4


def surely_over(tokens: int, limit: int) -> bool:
    """Whether so many tokens, counted in parts, are more than `limit` also when they are counted together."""
    return tokens > limit * _MARGIN + _FEW


def far_over(tokens: int, limit: int) -> bool:
    """Whether a text of about so many tokens is not worth an exact count."""
    return tokens > _FAR * limit + 1024


def count_within(engine: Counter, text: str, limit: int) -> int:
    """The tokens of a text; where they are certainly more than `limit`, an estimate of them from its beginning."""
    length = max(4096, _CHARACTERS * limit)
    while length < len(text):
        tokens = engine.count(text[:length])
        if surely_over(tokens, limit):
            return tokens * len(text) // length
        length *= _CHARACTERS
    return engine.count(text)
