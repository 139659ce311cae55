"""Choose the passages of a page that a question is about, within a budget of characters."""

import math
import re

_WORD = re.compile(r"\w{2,}")
# Scripts that put no spaces between words: pairs of characters stand for words.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]{2,}")
_LONGEST = 600
_GAP = "\n…\n"
# The opening of a page usually says what it is about.
_OPENING = 0.5


def passages(text: str, question: str, budget: int) -> str:
    """The passages that share the rarest words with the question, in the order of the page.

    The whole text if it fits, and its beginning if no passage shares a word.
    """
    if len(text) <= budget:
        return text
    pieces = _split(text)
    scores = _scores(pieces, question)
    if not any(scores):
        return text[:budget].rstrip()
    scores[0] += _OPENING * max(scores)
    chosen, left = set[int](), budget
    for index in sorted(range(len(pieces)), key=lambda index: -scores[index]):
        cost = len(pieces[index]) + len(_GAP)
        if scores[index] > 0 and cost <= left:
            chosen.add(index)
            left -= cost
    return _joined(pieces, chosen) or text[:budget].rstrip()


def _split(text: str) -> list[str]:
    """Paragraphs; a heading stays with what follows it, and long ones are cut at sentences."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if pieces and pieces[-1].startswith("#") and "\n" not in pieces[-1]:
            paragraph = f"{pieces.pop()}\n{paragraph}"
        pieces += _cut(paragraph.strip())
    return [piece for piece in pieces if piece]


def _cut(paragraph: str) -> list[str]:
    pieces = []
    while len(paragraph) > _LONGEST:
        ends = [paragraph.rfind(mark, _LONGEST // 3, _LONGEST) for mark in ("\n", ". ", " ")]
        end = next((end + 1 for end in ends if end > 0), _LONGEST)
        pieces.append(paragraph[:end].strip())
        paragraph = paragraph[end:]
    return [*pieces, paragraph.strip()]


def _scores(pieces: list[str], question: str) -> list[float]:
    """For each piece the weights of the question's words in it: a word of few pieces weighs most.

    A long piece has more words by chance, so the sum is divided by the root of its length.
    """
    words = [_words(piece) for piece in pieces]
    weights = {}
    for word in _words(question):
        count = sum(word in found for found in words)
        weights[word] = math.log(len(pieces) / count) if count else 0.0
    return [
        sum(weights[word] for word in weights if word in found) / math.sqrt(50 + len(piece))
        for piece, found in zip(pieces, words, strict=True)
    ]


def _words(text: str) -> set[str]:
    found = set(_WORD.findall(text.casefold()))
    return found | {
        run[start : start + 2] for run in _UNSPACED.findall(text) for start in range(len(run) - 1)
    }


def _joined(pieces: list[str], chosen: set[int]) -> str:
    """The chosen pieces in order, with a mark where others were left out."""
    text = ""
    for index in sorted(chosen):
        text += ("\n\n" if index - 1 in chosen else _GAP if text else "") + pieces[index]
    return text
