"""Decodes an answer token by token; a character is returned when its last byte is there."""

import codecs
from collections.abc import Callable


class IncrementalDecoder:
    """Takes the ids of an answer one by one and returns the text that each completes.

    A tokenizer's decoder looks at neighbours (spaces between words, bytes of a character), so the
    last tokens are decoded together, with and without the new one. The bytes of the tokens decide
    whether a character is incomplete, since a U+FFFD in a text can be one that the model wrote.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        spelling: Callable[[int], bytes],
        skipped: frozenset[int],
        is_byte: Callable[[int], bool],
    ):
        """skipped: special tokens, which are not shown. is_byte: whether a token is a single byte,
        written as `<0x0A>`.
        """
        self._decode = decode
        self._spelling = spelling
        self._skipped = skipped
        self._is_byte = is_byte
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        # Tokens already returned, which are the context of the next ones.
        self._before: list[int] = []
        # Tokens not returned yet, and the text of their bytes.
        self._pending: list[int] = []
        self._text = ""

    def __call__(self, token: int) -> str:
        if token in self._skipped:
            return ""
        self._text += self._bytes.decode(self._spelling(token))
        self._pending.append(token)
        if self._bytes.getstate()[0]:
            return ""
        ids, text, self._pending, self._text = self._pending, self._text, [], ""
        if all(map(self._is_byte, ids)):
            # Decoded together with earlier bytes, an invalid one would spoil all of them.
            self._before = self._before or ids
            return text
        shown = self._decode(self._before) if self._before else ""
        text = self._decode(self._before + ids)
        self._before = ids
        return text[len(shown) :]
