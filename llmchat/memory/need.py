"""Whether a question needs passages: what is small talk, or about something else, gets none."""

import re
from collections.abc import Collection, Sequence

from llmchat.memory.index import Index
from llmchat.memory.types import Embedder, Hit

_WORD = re.compile(r"[^\W_]{2,}")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]{2,}")
# Words that say nothing about a subject: those of grammar, of small talk, and of asking again.
_EMPTY_WORDS = """
about above after again all also am an and any are as at back be because been before being
below between both but by can cannot come could did do does doing done down each either else
every few for from get give go going good got great had has have having he hello help helped
helpful helps her here hers hey hi him his how however if in into is it its just kind know let
like ll lot lots make many may me mean might mine more most much must my need never no nor not
now of off ok okay on once one only or other our ours out over own perfect please put re really
right said same say see shall she should show so some something sorry still such sure take tell
than thank thanks that the their theirs them then there these they thing things think this those
though through to too try under until up us use used using ve very want was way we well were what
when where whether which while who whom whose why will with within without would yes yet you your
yours
answer answers ask awesome bye continue cool elaborate example examples explain expand first
further last longer meant next nice question repeat rephrase rewrite second sentence sentences
shorten shorter simpler summarise summarize understand word words wow
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())
# A stem this long tells most words apart: `compile`, `compiled` and `compiler` share one.
_STEM = 5
# Passages of which the best one counts.
_LOOKED_AT = 5
# Measured on questions about documents, small talk and questions about other things: see
# docs/memory.md.
LEAST_SHARED = 0.3
# The cosine of a question and the nearest passage, by embedder; measured as above.
_LEAST_SIMILAR = {"all-minilm-l6-v2": 0.32}


def least_similar(embedder: str) -> float | None:
    """The cosine from which a passage fits a question; None if it was not measured."""
    return _LEAST_SIMILAR.get(embedder)


def subject(text: str) -> set[str]:
    """The stems of the words that say what a text is about."""
    words = {word for word in _WORD.findall(text.casefold()) if word not in _EMPTY}
    pairs = {
        run[place : place + 2] for run in _UNSPACED.findall(text) for place in range(len(run) - 1)
    }
    return {word[:_STEM] for word in words if not _UNSPACED.match(word)} | pairs


def fits(question: str, hits: Sequence[Hit]) -> bool:
    """Whether one of the best passages has enough words of a question's subject.

    That is a fraction of them, and at least two unless there is only one.
    """
    asked = subject(question)
    texts = (f"{hit.passage.heading} {hit.passage.text}" for hit in hits[:_LOOKED_AT])
    shared = max((len(asked & subject(text)) for text in texts), default=0)
    return shared >= min(2, len(asked)) and shared >= max(1, LEAST_SHARED * len(asked))


def fitting(
    index: Index,
    question: str,
    limit: int,
    embedder: Embedder | None,
    left_out: Collection[str] = (),
) -> list[Hit]:
    """The best passages of an index, best first; none if not even the best fits the question.

    By meaning where the least cosine of the embedder is known, else by words. left_out: sources
    that do not count.
    """
    wanted = limit + len(left_out)
    hits = _others(index.search(question, wanted, embedder), left_out)[:limit]
    least = least_similar(embedder.name) if embedder else None
    if least is None:
        return hits if fits(question, hits) else []
    nearest = _others(index.search(question, len(left_out) + 1, embedder, mode="meaning"), left_out)
    return hits if nearest and nearest[0].score >= least else []


def _others(hits: Sequence[Hit], left_out: Collection[str]) -> list[Hit]:
    return [hit for hit in hits if hit.passage.source not in left_out]
