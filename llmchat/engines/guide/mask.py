"""The set of tokens that may come next, as a bit for each."""

import ctypes
from collections.abc import Iterable


class Mask:
    """Bits of `count` tokens, lowest first in words of 32. All are off at first."""

    def __init__(self, count: int):
        self.count = count
        self.words = (ctypes.c_uint32 * (-(-count // 32)))()

    @property
    def address(self) -> int:
        return ctypes.addressof(self.words)

    @property
    def size(self) -> int:
        """Bytes."""
        return ctypes.sizeof(self.words)

    def __contains__(self, token: int) -> bool:
        return bool(self.words[token >> 5] >> (token & 31) & 1)

    def add(self, token: int) -> None:
        self.words[token >> 5] |= 1 << (token & 31)

    def discard(self, token: int) -> None:
        self.words[token >> 5] &= ~(1 << (token & 31))

    def clear(self) -> None:
        ctypes.memset(self.words, 0, self.size)

    def copy_of(self, other: "Mask") -> None:
        """Hold what `other` holds; both have the same count."""
        ctypes.memmove(self.words, other.words, self.size)

    def unite(self, other: "Mask") -> None:
        """Add the tokens of a mask of the same count."""
        both = int.from_bytes(self.words, "little") | int.from_bytes(other.words, "little")
        ctypes.memmove(self.words, both.to_bytes(self.size, "little"), self.size)

    @property
    def is_empty(self) -> bool:
        return not bytes(self.words).strip(b"\0")


def mask_of(count: int, tokens: Iterable[int]) -> Mask:
    """A mask with these tokens on; those beyond `count` are left out."""
    mask = Mask(count)
    for token in tokens:
        if token < count:
            mask.add(token)
    return mask
