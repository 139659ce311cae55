"""Several sources as one, by weight, and a split that stays the same as the data grows."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction

from llmchat.errors import UsageError
from llmchat.finetune.records import Record


def fingerprint(record: Record, key: str = "") -> bytes:
    """16 bytes that identify a conversation, ignoring its place and surrounding white space."""
    digest = hashlib.blake2b(digest_size=16, key=key.encode()[:64])
    digest.update(record.text.strip().encode("utf-8", "surrogatepass"))
    for message in record.messages:
        content = f"\x1e{message.role}\x1f{message.input.strip()}\x1f{message.text.strip()}"
        digest.update(content.encode("utf-8", "surrogatepass"))
    return digest.digest()


def mix(groups: Sequence[Sequence[Record]], weights: Sequence[str], seed: int) -> list[Record]:
    """Mix the groups in the proportions of `weights`, until the first group is used up.

    No record occurs twice. The seed decides which records of a group are used; the groups are
    interleaved evenly. Weights are decimal numbers.
    """
    shares = [Fraction(weight) for weight in weights]
    total = sum(shares)
    size = min(len(group) * total / share for group, share in zip(groups, shares, strict=True))
    mixed: list[tuple[Fraction, int, Record]] = []
    for index, (group, share) in enumerate(zip(groups, shares, strict=True)):
        count = int(size * share / total)
        drawn = random.Random(f"{seed}:{index}").sample(range(len(group)), count)
        # The middle of each of `count` equal parts of the mixture.
        mixed += [
            (Fraction(2 * position + 1, 2 * count), index, group[number])
            for position, number in enumerate(drawn)
        ]
    mixed.sort(key=lambda one: one[:2])
    return [record for _, _, record in mixed]


def split(
    records: Iterable[Record], share_or_count: float | int, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Training and evaluation records, split by a hash of the content and the seed.

    The same conversation is never in both. A float is a fraction (0.05: about one in twenty); a
    record then never changes sides when others are added or removed. An int is a count: the records
    with the smallest hashes, with equal ones together, so there may be a few less. When records are
    added, some can move from evaluation to training, but never the other way. Raises UsageError if
    nothing would be left for training.
    """
    hashed = [(int.from_bytes(fingerprint(record, f"split {seed}")), record) for record in records]
    if isinstance(share_or_count, float):
        if not 0 <= share_or_count < 1:
            raise UsageError(
                f"a fraction for evaluation must be from 0 to below 1, not {share_or_count}"
            )
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
    """The hash below which there are at most `count` values, counting equal ones together."""
    if count < 0:
        raise UsageError(f"a count for evaluation cannot be {count}")
    ordered = sorted(values)
    return ordered[count] if count < len(ordered) else 1 << 128
