"""The vectors of an index: stored as float32 in SQLite, searched as one matrix in memory."""

from typing import Any

from llmchat.errors import IntegrityError, Mismatch
from llmchat.memory.database import Database
from llmchat.memory.types import Embedder

_ROWS = 4096
_BYTES = 4


def embedder_of(database: Database) -> tuple[str, int]:
    """The name of the embedder that made the vectors, and their width; `"", 0` without vectors."""
    facts = dict(database.rows("SELECT name, value FROM facts WHERE name IN ('embedder', 'width')"))
    return facts.get("embedder", ""), int(facts.get("width", 0))


def check_embedder(database: Database, embedder: Embedder) -> None:
    """Raise Mismatch if the vectors of the index are another embedder's."""
    name, width = embedder_of(database)
    if name and (name, width) != (embedder.name, embedder.width):
        raise Mismatch(
            f"the vectors of {database.path.stem} are from {name} ({width} numbers), not from"
            f" {embedder.name} ({embedder.width})",
            f"`llmchat index update {database.path.stem} --embedder {embedder.name}` computes new"
            " ones",
        )


def adopt_embedder(database: Database, embedder: Embedder) -> None:
    """Note, within a transaction, whose vectors the index holds. Raises Mismatch."""
    check_embedder(database, embedder)
    for fact in (("embedder", embedder.name), ("width", str(embedder.width))):
        database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", fact)


def forget_embedder(database: Database) -> None:
    """Delete all vectors within a transaction; the next embedder may be another one."""
    database.execute("DELETE FROM vectors")
    database.execute("DELETE FROM facts WHERE name IN ('embedder', 'width')")


def as_blob(vector: Any) -> bytes:
    """A vector as little-endian float32."""
    import numpy as np

    return bytes(np.ascontiguousarray(vector, dtype="<f4").tobytes())


class Matrix:
    """All vectors of an index. numbers: int64 [n], the passages; rows: float32 [n, width]."""

    def __init__(self, database: Database, width: int):
        import numpy as np

        (count,) = database.rows("SELECT count(*) FROM vectors")[0]
        self.numbers = np.empty(count, np.int64)
        self.rows = np.empty((count, width), np.float32)
        self._fill(database, width)

    def _fill(self, database: Database, width: int) -> None:
        """Read the vectors in pieces: the memory holds them once."""
        import numpy as np

        cursor = database.execute("SELECT passage, vector FROM vectors")
        start = 0
        while found := cursor.fetchmany(_ROWS):
            data = b"".join(vector for _, vector in found)
            if len(data) != len(found) * width * _BYTES:
                raise IntegrityError(
                    f"vectors of {database.path} have other widths than {width}",
                    f"`llmchat index rm {database.path.stem}`, and add its documents again",
                )
            end = start + len(found)
            self.numbers[start:end] = [number for number, _ in found]
            self.rows[start:end] = np.frombuffer(data, "<f4").reshape(len(found), width)
            start = end

    def nearest(self, vector: Any, limit: int) -> list[tuple[int, float]]:
        """The passages with the highest cosine to a vector of length 1, best first."""
        import numpy as np

        scores = self.rows @ np.asarray(vector, np.float32)
        limit = min(limit, len(scores))
        if not limit:
            return []
        best = np.argpartition(-scores, limit - 1)[:limit]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(int(self.numbers[place]), float(scores[place])) for place in best]
