"""The vocabulary of the RWKV "World" models: byte strings, matched greedily, longest first.

Each line of `rwkv_vocab_v20230424.txt` is `number literal length`, the literal a Python str or
bytes. The checkpoints bring Python code that reads it; that code is not run. Token 0 ends a text
and is not in the file.
"""

import ast
import bisect
import codecs
from collections.abc import Callable, Sequence
from pathlib import Path

from llmchat.errors import IntegrityError

END = 0
# The file of a checkpoint.
FILE = "rwkv_vocab_v20230424.txt"


def lines_of(tokens: Sequence[str], kinds: Sequence[int], normal: int) -> str:
    """The lines of a vocabulary file, of tokens that are spelled as in Python's literals of bytes.

    kinds: of the tokens, of which those that are not `normal` are left out, as token 0 is.
    """
    spellings = [codecs.escape_decode(token.encode("utf-8"))[0] for token in tokens]
    return "".join(
        f"{number} {spelling!r} {len(spelling)}\n"
        for number, (spelling, kind) in enumerate(zip(spellings, kinds, strict=True))
        if kind == normal
    )


class WorldVocabulary:
    """See vocabulary.Vocabulary. Every single byte is a token, so any text can be encoded."""

    def __init__(self, path: Path):
        self.specials: dict[str, int] = {}
        self.marks: tuple[str, ...] = ()
        self._bytes = _read(path)
        self._ids = {token: number for number, token in self._bytes.items()}
        if missing := 256 - sum(len(token) == 1 for token in self._ids):
            raise IntegrityError(f"{path} lacks {missing} of the 256 single bytes")
        # By the first two bytes, the lengths of tokens, longest first. A trie is slower in Python.
        lengths: dict[bytes, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {start: sorted(sizes, reverse=True) for start, sizes in lengths.items()}

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text. The vocabulary has no special tokens."""
        data, ids, position = text.encode("utf-8", "replace"), [], 0
        while position < len(data):
            token = self._longest_at(data, position)
            ids.append(self._ids[token])
            position += len(token)
        return ids

    def _longest_at(self, data: bytes, position: int) -> bytes:
        for size in self._lengths.get(data[position : position + 2], ()):
            if (token := data[position : position + size]) in self._ids:
                return token
        return data[position : position + 1]

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """The characters of each token; a part of a character counts as that character."""
        starts = [0]
        for character in text:
            starts.append(starts[-1] + len(character.encode("utf-8", "replace")))
        spans, position = [], 0
        for token in self.ids(text):
            end = position + len(self._bytes[token])
            spans.append(
                (bisect.bisect_right(starts, position) - 1, bisect.bisect_left(starts, end))
            )
            position = end
        return spans

    def id_of(self, token: str) -> int | None:
        return self._ids.get(token.encode())

    def name_of(self, token: int) -> str | None:
        if token == END:
            return "<end>"
        spelling = self._bytes.get(token)
        return None if spelling is None else spelling.decode("utf-8", "replace")

    def spelling(self, token: int) -> bytes:
        return self._bytes.get(token, b"")

    def spellings(self, count: int) -> list[bytes]:
        return [self._bytes.get(token, b"") for token in range(count)]

    def around(self) -> list[int]:
        return []

    def decoder(self) -> Callable[[int], str]:
        """A function that takes ids one by one and returns the characters that each completes."""
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token: characters.decode(self._bytes.get(token, b""))


def _read(path: Path) -> dict[int, bytes]:
    tokens = {}
    for count, line in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"), 1):
        try:
            start, end = line.index(" "), line.rindex(" ")
            number, length = int(line[:start]), int(line[end:])
            value = ast.literal_eval(line[start:end].strip())
            token = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        except (ValueError, SyntaxError, TypeError) as error:
            raise IntegrityError(f"{path}, line {count}, is not `number literal length`") from error
        if len(token) != length or not token:
            raise IntegrityError(
                f"{path}, line {count}: the token has {len(token)} bytes instead of {length}"
            )
        tokens[number] = token
    return tokens
