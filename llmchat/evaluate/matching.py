"""Decide whether two texts are the same answer."""

import re
import string
import unicodedata
from collections.abc import Collection
from typing import Literal

Fold = Literal["case", "punctuation", "articles"]
FOLDS: tuple[Fold, ...] = ("case", "punctuation", "articles")


def normalise(text: str, fold: Collection[str] = ()) -> str:
    """Strip a text and, as `fold` says, remove case, punctuation, or the articles a, an, the.

    With all three it is the normalisation of SQuAD's evaluation script (Rajpurkar et al. 2016), for
    the punctuation of all scripts. Any fold also reduces white space to single spaces.
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


def matches(kind: str, text: str, answers: Collection[str], fold: Collection[str] = ()) -> bool:
    """exact: the answer is one of `answers`; contains: it contains one of them."""
    text = normalise(text, fold)
    wanted = [normalise(answer, fold) for answer in answers]
    return text in wanted if kind == "exact" else any(answer in text for answer in wanted)
