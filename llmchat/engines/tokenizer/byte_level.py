"""The alphabet of byte-level vocabularies, in which every byte is a printable character."""

import functools


@functools.cache
def byte_of() -> dict[str, int]:
    """The byte that each character stands for (Radford et al. 2019, GPT-2).

    Printable bytes stand for themselves; the others are written from U+0100 on.
    """
    printed = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


@functools.cache
def _table() -> dict[int, int]:
    """For str.translate: the byte of a character, or a character beyond Latin-1."""
    known = {ord(character): byte for character, byte in byte_of().items()}
    return {number: known.get(number, 0xFFFF) for number in range(0x200)}


def bytes_of(name: str) -> bytes | None:
    """The bytes of a token in this alphabet; None if the name has other characters."""
    try:
        return name.translate(_table()).encode("latin-1")
    except UnicodeEncodeError:
        return None
