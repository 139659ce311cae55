"""The index of words: what SQLite's FTS5 is given of a passage, and of a question.

FTS5 splits at spaces and signs. Scripts without spaces are therefore given as pairs of characters:
`日本語` as `日本 本語 語`.
"""

import re

_UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"[^\W_]+")
_MOST_WORDS = 64


def indexed(text: str) -> str:
    """A text as FTS5 indexes it."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def query(question: str) -> str:
    """An FTS5 query for passages with any word of a question; empty if it has none.

    Every word is quoted, so that no character of a question is syntax.
    """
    terms: dict[str, None] = {}
    for word in _WORD.findall(_UNSPACED.sub(" ", question)):
        terms[f'"{word}"'] = None
    for run in _UNSPACED.findall(question):
        pairs = _pairs(run)
        # One character is the beginning of a pair; the last one of a longer run is in its pair.
        terms |= dict.fromkeys(f'"{pair}"' for pair in pairs[:-1])
        if len(pairs) == 1:
            terms[f'"{run}" *'] = None
    return " OR ".join(list(terms)[:_MOST_WORDS])


def _pairs(run: str) -> list[str]:
    """The pairs of neighbours in a run of characters, and its last character."""
    return [run[place : place + 2] for place in range(len(run))]
