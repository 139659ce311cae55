"""Text of an answer, token by token: a character is given out when its last byte is there."""

import codecs
from collections.abc import Callable


class IncrementalDecoder:
    """Takes the ids of an answer one by one and returns the text that has become whole with each.

    A tokenizer's decoder looks at neighbours (spaces between words, bytes of a character), so the last tokens are decoded together, with and without
    the new one. Whether a character is still open is told by the bytes of the tokens: U+FFFD in a text may be one that the model wrote.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        spelling: Callable[[int], bytes],
        skipped: frozenset[int],
        is_byte: Callable[[int], bool],
    ):
        """skipped: special tokens, which are no text. is_byte: whether a token is a single byte, which vocabularies write as `<0x0A>`."""
        self._decode = decode
        self._spelling = spelling
        self._skipped = skipped
        self._is_byte = is_byte
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        # Tokens that were given out and give the next ones their context, those that were not yet, and what their bytes say.
        self._before: list[int] = []
        self._open: list[int] = []
        self._said = ""

    def __call__(self, token: int) -> str:
        if token in self._skipped:
            return ""
        self._said += self._bytes.decode(self._spelling(token))
        self._open.append(token)
        if self._bytes.getstate()[0]:
            return ""
        opened, said, self._open, self._said = self._open, self._said, [], ""
        if all(map(self._is_byte, opened)):
            # Together with earlier bytes a wrong one would make all of them wrong.
            self._before = self._before or opened
            return said
        shown = self._decode(self._before) if self._before else ""
        text = self._decode(self._before + opened)
        self._before = opened
        return text[len(shown) :]
