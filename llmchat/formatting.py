"""Numbers with their nouns: `1 chat`, `2,000 chats`."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`plural` is the form for all counts but 1; without one an `s` is appended."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
