"""When two texts are the same answer."""

import re
import string
import unicodedata
from collections.abc import Collection
from typing import Literal

Fold = Literal["case", "punctuation", "articles"]
FOLDS: tuple[Fold, ...] = ("case", "punctuation", "articles")


def normalise(text: str, fold: Collection[str] = ()) -> str:
    """A text without white space at its ends, and, where `fold` says so, without case, punctuation, or the articles a, an, the.

    With all three it is the normalisation of SQuAD's evaluation script (Rajpurkar et al. 2016), with the punctuation of every script.
    Any fold makes runs of white space one space.
    """
    text = unicodedata.normalize("NFC", text)
    if "case" in fold:
        text = text.casefold()
    if "punctuation" in fold:
        text = "".join(
            letter
            for letter in text
            if letter not in string.punctuation and unicodedata.category(letter)[0] != "P"
        )
    if "articles" in fold:
        text = re.sub(r"\b(a|an|the)\b", " ", text, flags=re.IGNORECASE)
    return " ".join(text.split()) if fold else text.strip()


def matches(kind: str, said: str, answers: Collection[str], fold: Collection[str] = ()) -> bool:
    """exact: what was said is one of the answers; contains: one of them stands in it."""
    said = normalise(said, fold)
    wanted = [normalise(answer, fold) for answer in answers]
    return said in wanted if kind == "exact" else any(answer in said for answer in wanted)
