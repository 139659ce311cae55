"""What was added to an index, and what was removed from below it: an update follows both."""

from collections.abc import Iterable

from llmchat.memory.database import Database


def roots(database: Database) -> list[str]:
    """The paths and addresses that were added, sorted."""
    rows = database.rows("SELECT source FROM roots WHERE NOT excluded ORDER BY source")
    return [row[0] for row in rows]


def remember(database: Database, sources: Iterable[str]) -> None:
    """Note sources within a transaction; what was removed of them before comes back."""
    for source in sources:
        below = source.rstrip("/") + "/"
        database.execute(
            "DELETE FROM roots WHERE excluded AND (source = ?1 OR substr(source, 1, ?2) = ?3)",
            (source, len(below), below),
        )
        database.execute("INSERT OR REPLACE INTO roots VALUES (?, 0)", (source,))


def exclude(database: Database, source: str) -> None:
    """Forget a source within a transaction, and leave it out where it is below another one."""
    database.execute("DELETE FROM roots WHERE source = ?", (source,))
    if is_below(source, roots(database)):
        database.execute("INSERT INTO roots VALUES (?, 1)", (source,))


def excluded(database: Database) -> list[str]:
    """What was removed from below a path that was added."""
    return [row[0] for row in database.rows("SELECT source FROM roots WHERE excluded")]


def is_below(source: str, folders: Iterable[str]) -> bool:
    """Whether a source is one of the paths, or in one of them."""
    return any(source == one or source.startswith(one.rstrip("/") + "/") for one in folders)
