"""How byte-level vocabularies spell bytes that cannot be printed."""

import functools


@functools.cache
def byte_of() -> dict[str, int]:
    """How byte-level vocabularies write a byte (Radford et al. 2019, GPT-2): as itself where it can be printed, else from U+0100 on."""
    printed = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }
