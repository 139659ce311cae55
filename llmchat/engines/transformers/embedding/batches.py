"""Which texts are read together."""

from collections.abc import Iterator, Sequence

# Tokens of a batch, unless one text is longer.
TOKENS = 2048


def batches(lengths: Sequence[int], most: int = TOKENS) -> Iterator[list[int]]:
    """Indices of texts, those of like length together, at most `most` tokens at a time.

    Texts of length 0 are left out.
    """
    order = sorted(
        filter(lengths.__getitem__, range(len(lengths))), key=lambda index: -lengths[index]
    )
    part: list[int] = []
    for index in order:
        if part and (len(part) + 1) * lengths[part[0]] > most:
            yield part
            part = []
        part.append(index)
    if part:
        yield part
