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
    if any(source.startswith(root.rstrip("/") + "/") for root in roots(database)):
        database.execute("INSERT INTO roots VALUES (?, 1)", (source,))


def included(database: Database, source: str) -> bool:
    """Whether neither a source nor a folder above it was removed."""
    rows = database.rows(
        "SELECT 1 FROM roots WHERE excluded AND (source = ?1 OR"
        " substr(?1, 1, length(source) + 1) = source || '/') LIMIT 1",
        (source,),
    )
    return not rows
