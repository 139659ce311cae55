"""From texts to token ids, cut to what a model reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.errors import IntegrityError
from llmchat.parse_guard import reading

if TYPE_CHECKING:
    from tokenizers import Encoding


class Texts:
    """The tokenizer of an encoder. longest: most tokens of a text, with special tokens.

    ends_with: a token that is appended unless the tokenizer does it.

    specials: how many special tokens are put around a text.
    """

    def __init__(self, folder: Path, longest: int, ends_with: str = ""):
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise IntegrityError(f"{folder.name} has no tokenizer.json")
        with reading(path):
            self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._longest = longest
        self._ending = self._ending_of(ends_with, folder) if ends_with else []
        self.specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.specials += len(self._ending)

    def _ending_of(self, token: str, folder: Path) -> list[int]:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise IntegrityError(f"the tokenizer of {folder.name} has no token `{token}`")
        return [] if self._tokenizer.encode("a").ids[-1:] == [number] else [number]

    def count(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[str], *, cut: bool = True) -> list[list[int]]:
        """The ids of each text with special tokens. cut: what is too long loses its end."""
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return [self._cut(one) if cut else one.ids + self._ending for one in encoded]

    def encode_pairs(
        self, question: str, passages: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Ids and segments of the question with each passage; the longer of the two is cut."""
        first = self._tokenizer.encode(question, add_special_tokens=False)
        others = self._tokenizer.encode_batch_fast(list(passages), add_special_tokens=False)
        return [self._pair(first, other) for other in others]

    def _pair(self, first: "Encoding", other: "Encoding") -> tuple[list[int], list[int]]:
        room = self._longest - self._tokenizer.num_special_tokens_to_add(is_pair=True)
        kept, rest = shares(len(first.ids), len(other.ids), room)
        first, other = _beginning(first, kept), _beginning(other, rest)
        joined = self._tokenizer.post_process(first, other)
        return joined.ids, joined.type_ids

    def _cut(self, encoding: "Encoding") -> list[int]:
        ids: list[int] = encoding.ids
        over = len(ids) + len(self._ending) - self._longest
        if over <= 0:
            return ids + self._ending
        mask = encoding.special_tokens_mask
        kept = len(ids) - mask[::-1].index(0)
        return ids[: kept - over] + ids[kept:] + self._ending


def shares(first: int, other: int, room: int) -> tuple[int, int]:
    """Tokens that are kept of two texts: the longer one is cut first, then both to a half."""
    short, long = sorted((first, other))
    long = min(long, max(short, room - short))
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (short, long) if first <= other else (long, short)


def _beginning(encoding: "Encoding", length: int) -> "Encoding":
    if len(encoding.ids) <= length:
        return encoding
    import copy

    cut = copy.copy(encoding)
    cut.truncate(length)
    return cut
