"""What turns text into token ids and back: one implementation per kind of tokenizer file."""

import re
from collections.abc import Callable, Iterable
from typing import Protocol


class Vocabulary(Protocol):
    """What turns text into ids.

    specials: the special tokens that a text can spell, and their ids; marks: tokens found in any text though they are not special (<think>)
    """

    specials: dict[str, int]
    marks: tuple[str, ...]

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a bare text; without `special` a special token that is spelt out is text."""
        ...

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """Where each of the ids of a text stands in it, in characters."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""
        ...

    def name_of(self, token: int) -> str | None:
        """How the vocabulary writes a token; None where it has no such id."""
        ...

    def spelling(self, token: int) -> bytes:
        """The bytes of a text that a token stands for; special tokens are spelt as they are named."""
        ...

    def around(self) -> list[int]:
        """What the tokenizer itself puts around a text."""
        ...

    def decoder(self) -> Callable[[int], str]: ...


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the longest of these words; for nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")
