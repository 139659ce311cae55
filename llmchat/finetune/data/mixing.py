"""Several sources as one, by weight, and a split that stays the same as the data grows."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction

from llmchat.errors import UsageError
from llmchat.finetune.records import Record


def fingerprint(record: Record, key: str = "") -> bytes:
    """16 bytes that are the same for the same conversation, whatever its place and the white space around its texts."""
    digest = hashlib.blake2b(digest_size=16, key=key.encode()[:64])
    digest.update(record.text.strip().encode("utf-8", "surrogatepass"))
    for message in record.messages:
        said = f"\x1e{message.role}\x1f{message.input.strip()}\x1f{message.text.strip()}"
        digest.update(said.encode("utf-8", "surrogatepass"))
    return digest.digest()


def mix(groups: Sequence[Sequence[Record]], weights: Sequence[str], seed: int) -> list[Record]:
    """Records of every group in the shares that `weights` say, none twice: as many as there are until the first group is used up.

    Which records of a group are taken follows from the seed; the groups are laid evenly into each other. Weights are decimal numbers.
    """
    shares = [Fraction(weight) for weight in weights]
    total = sum(shares)
    size = min(len(group) * total / share for group, share in zip(groups, shares, strict=True))
    mixed: list[tuple[Fraction, int, Record]] = []
    for index, (group, share) in enumerate(zip(groups, shares, strict=True)):
        count = int(size * share / total)
        drawn = random.Random(f"{seed}:{index}").sample(range(len(group)), count)
        # The middle of each of `count` equal stretches of the mixture.
        mixed += [
            (Fraction(2 * position + 1, 2 * count), index, group[number])
            for position, number in enumerate(drawn)
        ]
    mixed.sort(key=lambda one: one[:2])
    return [record for _, _, record in mixed]


def split(
    records: Iterable[Record], share_or_count: float | int, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Training and evaluation records, chosen by a hash of the content and the seed: the same conversation never stands in both.

    A float is a share (0.05: about one in twenty); then no record ever changes its side when others are added or removed.
    An int is a count: the records with the smallest hashes, a whole group of equal ones at a time, so that it can be fewer by a few; when
    records are added, some of the evaluation ones may move to training, never the other way.
    Raises UsageError where nothing would be left for training.
    """
    hashed = [(int.from_bytes(fingerprint(record, f"split {seed}")), record) for record in records]
    if isinstance(share_or_count, float):
        if not 0 <= share_or_count < 1:
            raise UsageError(f"a share for evaluation is from 0 to below 1, not {share_or_count}")
        limit = int(share_or_count * (1 << 128))
    else:
        limit = _limit([value for value, _ in hashed], share_or_count)
    train = [record for value, record in hashed if value >= limit]
    if hashed and not train:
        raise UsageError(
            f"{share_or_count} records for evaluation leave none of {len(hashed)} for training"
        )
    return train, [record for value, record in hashed if value < limit]


def _limit(values: list[int], count: int) -> int:
    """The hash below which at most `count` values lie, with all their equals."""
    if count < 0:
        raise UsageError(f"a count for evaluation cannot be {count}")
    ordered = sorted(values)
    return ordered[count] if count < len(ordered) else 1 << 128
