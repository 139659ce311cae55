"""The protocol between text and token ids, implemented for each kind of tokenizer file."""

import re
from collections.abc import Callable, Iterable
from typing import Protocol


class Vocabulary(Protocol):
    """A vocabulary.

    specials: the special tokens that a text can spell, and their ids. marks: tokens that are not
    special but recognised anywhere in a text (<think>).
    """

    specials: dict[str, int]
    marks: tuple[str, ...]

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a bare text. special: whether a special token in it counts as one."""
        ...

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """The characters of the text that each of its ids covers, as (start, end)."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""
        ...

    def name_of(self, token: int) -> str | None:
        """The name of a token; None if there is no such id."""
        ...

    def spelling(self, token: int) -> bytes:
        """The bytes that a token stands for; a special token is spelt like its name."""
        ...

    def spellings(self, count: int) -> list[bytes]:
        """The spelling of each id below `count`; empty for an id without a token."""
        ...

    def around(self) -> list[int]:
        """The ids that the tokenizer itself puts around a text."""
        ...

    def decoder(self) -> Callable[[int], str]:
        """A function that takes ids one by one and returns the text that each completes."""
        ...


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches the longest of these words, or nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")
