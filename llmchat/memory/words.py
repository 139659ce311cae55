"""The index of words: what SQLite's FTS5 is given of a passage, and of a question.

FTS5 splits at spaces and signs. Scripts without spaces are therefore given as pairs of characters:
`日本語` as `日本 本語 語`.
"""

import re

from llmchat.memory.database import Database

_UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"[^\W_]+")
_MOST_WORDS = 64
# FTS5 scores about a million passages a second.
_MOST_SCORED = 15_000
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"


def indexed(text: str) -> str:
    """A text as FTS5 indexes it."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def terms(question: str) -> list[str]:
    """The words of a question as FTS5 phrases, each once.

    Every word is quoted, so that no character of a question is syntax.
    """
    found: dict[str, None] = {}
    for word in _WORD.findall(_UNSPACED.sub(" ", question)):
        found[f'"{word}"'] = None
    for run in _UNSPACED.findall(question):
        pairs = _pairs(run)
        # One character is the beginning of a pair; the last one of a longer run is in its pair.
        found |= dict.fromkeys(f'"{pair}"' for pair in pairs[:-1])
        if len(pairs) == 1:
            found[f'"{run}" *'] = None
    return list(found)[:_MOST_WORDS]


def query(phrases: list[str]) -> str:
    """An FTS5 query for the passages with any of these phrases."""
    return " OR ".join(phrases)


class CommonWords:
    """Leaves out of a question the words that would make SQLite score too many passages.

    Those words tell least. Up to 15,000 passages, no word is left out.
    """

    def __init__(self, database: Database):
        self._database = database
        self._counts: dict[str, int] = {}
        self._state: object = None

    def without(self, phrases: list[str], state: object) -> list[str]:
        """The rarest phrases, and at least one. state: of the index, whose counts are kept."""
        if state != self._state:
            self._counts, self._state = {}, state
        kept: list[str] = []
        scored = 0
        for phrase in sorted(phrases, key=self._count):
            scored += self._count(phrase)
            if kept and scored > _MOST_SCORED:
                break
            kept.append(phrase)
        return kept

    def _count(self, phrase: str) -> int:
        """In how many passages a phrase is, counted up to the limit."""
        if phrase not in self._counts:
            rows = self._database.rows(_COUNT, (phrase, _MOST_SCORED + 1))
            self._counts[phrase] = rows[0][0]
        return self._counts[phrase]


def _pairs(run: str) -> list[str]:
    """The pairs of neighbours in a run of characters, and its last character."""
    return [run[place : place + 2] for place in range(len(run))]
