"""Records that say the same as an earlier one: exactly, or nearly."""

from typing import Any

from llmchat.finetune.data.extras import has, need
from llmchat.finetune.data.flaws import texts, words
from llmchat.finetune.data.mixing import fingerprint
from llmchat.finetune.records import Record

NEAR = 0.8
_SHINGLE = 3
# 16 bands of 8 rows find a pair of likeness 0.8 with 95 %, of 0.9 with 99.99 %: 1 - (1 - likeness^8)^16.
_PERMUTATIONS, _BANDS = 128, 16


class Exact:
    """16 bytes for each record that was seen."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def earlier(self, record: Record) -> str:
        """The place of the record that said the same; "" for the first one, which is kept in mind."""
        key = fingerprint(record)
        earlier = self._seen.get(key, "")
        if not earlier:
            self._seen[key] = record.place
        return earlier


class Near:
    """MinHash with locality-sensitive hashing (rensa): about 2 kB for each record that was seen, the same result each time.

    Two records are near when their sets of three-word phrases overlap by NEAR (Jaccard), as 128 hashes estimate it: a standard error of
    0.035 there. Records of fewer than three words are compared as they are.
    """

    def __init__(self) -> None:
        self._rensa = need("rensa", "looking for near duplicates")
        self._index: Any = self._rensa.RMinHashLSH(NEAR, _PERMUTATIONS, _BANDS)
        self._seen: list[tuple[Any, str]] = []

    @staticmethod
    def available() -> bool:
        return has("rensa")

    def earlier(self, record: Record) -> str:
        """The place of the most similar record before this one; "" where none is near."""
        said = words("\n".join(texts(record)).lower())
        phrases = {
            " ".join(said[start : start + _SHINGLE])
            for start in range(max(1, len(said) - _SHINGLE + 1))
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
