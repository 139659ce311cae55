"""Remove documents from an index so that nothing of them stays in its file."""

from collections.abc import Iterable
from pathlib import Path

from llmchat.memory import stored
from llmchat.memory.database import Database


def erase(path: Path, sources: Iterable[str]) -> int:
    """Remove documents, and all below a source such as a folder; returns how many there were.

    The file is written anew: SQLite would otherwise keep old texts in its free pages.
    """
    database = Database(path, False)
    try:
        found = [one for source in sources for one in stored.sources_at(database, source)]
        if found:
            with database.transaction():
                for one in found:
                    stored.delete(database, one)
            _rewrite(database)
        return len(found)
    finally:
        database.close()


def _rewrite(database: Database) -> None:
    database.rows("INSERT INTO words(words) VALUES ('optimize')")
    database.rows("VACUUM")
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
