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
