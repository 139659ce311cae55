"""Find records that duplicate an earlier one, exactly or nearly."""

from typing import Any

from llmchat.finetune.data.extras import has, need
from llmchat.finetune.data.flaws import texts, words
from llmchat.finetune.data.mixing import fingerprint
from llmchat.finetune.records import Record

NEAR = 0.8
_SHINGLE = 3
# 16 bands of 8 rows find a pair of similarity s with probability 1 - (1 - s^8)^16: 95 % for 0.8,
# 99.99 % for 0.9.
_PERMUTATIONS, _BANDS = 128, 16


class Exact:
    """Exact duplicates; keeps 16 bytes per record."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def earlier(self, record: Record) -> str:
        """The place of the earlier equal record; "" if this is the first, which is remembered."""
        key = fingerprint(record)
        earlier = self._seen.get(key, "")
        if not earlier:
            self._seen[key] = record.place
        return earlier


class Near:
    """MinHash with locality-sensitive hashing (rensa): about 2 kB per record, deterministic.

    Two records are near duplicates if the Jaccard similarity of their three-word phrases is at
    least NEAR, as estimated by 128 hashes (standard error 0.035). Shorter records are compared as
    they are.
    """

    def __init__(self) -> None:
        self._rensa = need("rensa", "finding near duplicates")
        self._index: Any = self._rensa.RMinHashLSH(NEAR, _PERMUTATIONS, _BANDS)
        self._seen: list[tuple[Any, str]] = []

    @staticmethod
    def available() -> bool:
        return has("rensa")

    def earlier(self, record: Record) -> str:
        """The place of the most similar earlier record; "" if none is near."""
        sequence = words("\n".join(texts(record)).lower())
        phrases = {
            " ".join(sequence[start : start + _SHINGLE])
            for start in range(max(1, len(sequence) - _SHINGLE + 1))
        }
        sketch = self._rensa.RMinHash(_PERMUTATIONS, 42)
        sketch.update(sorted(phrases))
        found = max(
            (
                (sketch.jaccard(self._seen[number][0]), -number)
                for number in self._index.query(sketch)
            ),
            default=(0.0, 0),
        )
        if found[0] >= NEAR:
            return self._seen[-found[1]][1]
        self._index.insert(len(self._seen), sketch)
        self._seen.append((sketch, record.place))
        return ""
