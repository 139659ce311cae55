"""Other people's words, and numbers of bytes, as parts of our messages."""

_LONGEST = 60


def shown(text: str) -> str:
    """What somebody else wrote, as a part of a message: short, and nothing in it that steers a terminal."""
    clean = "".join(letter if letter.isprintable() else "�" for letter in text[: _LONGEST + 1])
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"


def size(count: float) -> str:
    """Bytes as people read them: 443 bytes, 67.2 MB, 13.5 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"
