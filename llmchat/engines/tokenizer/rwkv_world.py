"""The vocabulary of the RWKV "World" models: a text file of byte strings, matched greedily, longest first.

Each line of `rwkv_vocab_v20230424.txt` is `number literal length`, the literal a Python str or bytes. The checkpoints bring Python code that
reads it; that code is not run. Token 0 ends a text and is written nowhere.
"""

import ast
import bisect
import codecs
from collections.abc import Callable
from pathlib import Path

from llmchat.errors import IntegrityError

END = 0


class WorldVocabulary:
    """Text ↔ ids over bytes. Every single byte is a token, so any text can be written."""

    def __init__(self, path: Path):
        self.specials: dict[str, int] = {}
        self.marks: tuple[str, ...] = ()
        self._bytes = _read(path)
        self._ids = {token: number for number, token in self._bytes.items()}
        if missing := 256 - sum(len(token) == 1 for token in self._ids):
            raise IntegrityError(f"{path} lacks {missing} of the 256 single bytes")
        # The lengths that occur after two bytes, longest first: a trie would ask byte by byte, and Python is slow at that.
        lengths: dict[bytes, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {start: sorted(sizes, reverse=True) for start, sizes in lengths.items()}

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text; there are no special tokens that it could spell."""
        data, ids, position = text.encode("utf-8", "replace"), [], 0
        while position < len(data):
            start = data[position : position + 2]
            size = next(
                (
                    size
                    for size in self._lengths.get(start, ())
                    if data[position : position + size] in self._ids
                ),
                1,
            )
            ids.append(self._ids[data[position : position + size]])
            position += size
        return ids

    def spans(self, text: str, *, special: bool = True) -> list[tuple[int, int]]:
        """Characters of each token; one that holds a part of a character's bytes stands at that character."""
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
        """How a token reads; the end of a text has no bytes of its own."""
        return (
            "<end>"
            if token == END
            else self._bytes[token].decode("utf-8", "replace")
            if token in self._bytes
            else None
        )

    def spelling(self, token: int) -> bytes:
        return self._bytes.get(token, b"")

    def around(self) -> list[int]:
        """What the tokenizer puts around a text: nothing."""
        return []

    def decoder(self) -> Callable[[int], str]:
        """A function that takes ids one by one and returns the characters that have become whole with each."""
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token: characters.decode(self._bytes.get(token, b""))


def _read(path: Path) -> dict[int, bytes]:
    tokens = {}
    for count, line in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"), 1):
        try:
            number, literal, length = (
                int(line[: line.index(" ")]),
                line[line.index(" ") : line.rindex(" ")],
                int(line[line.rindex(" ") :]),
            )
            value = ast.literal_eval(literal.strip())
            token = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        except (ValueError, SyntaxError, TypeError) as error:
            raise IntegrityError(f"{path}, line {count}, is not `number literal length`") from error
        if len(token) != length or not token:
            raise IntegrityError(
                f"{path}, line {count}: the token is {len(token)} bytes long, the line says {length}"
            )
        tokens[number] = token
    return tokens
