"""What was added to an index, and what was removed from below it: an update follows both."""

from collections.abc import Iterable

from llmchat.memory.database import Database

# A fact for each source that was added with --no-ignore.
_WHOLE = "whole "


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


def read_whole(database: Database, sources: Iterable[str], *, whole: bool) -> None:
    """Note within a transaction whether updates read what `.gitignore` leaves out."""
    for source in sources:
        name = f"{_WHOLE}{source}"
        database.execute("DELETE FROM facts WHERE name = ?", (name,))
        if whole:
            database.execute("INSERT INTO facts VALUES (?, '1')", (name,))


def is_whole(database: Database, source: str) -> bool:
    """Whether updates read what `.gitignore` leaves out below a source."""
    return bool(database.rows("SELECT 1 FROM facts WHERE name = ?", (f"{_WHOLE}{source}",)))


def exclude(database: Database, source: str) -> None:
    """Forget a source within a transaction, and leave it out where it is below another one."""
    database.execute("DELETE FROM roots WHERE source = ?", (source,))
    read_whole(database, [source], whole=False)
    if is_below(source, roots(database)):
        database.execute("INSERT INTO roots VALUES (?, 1)", (source,))


def excluded(database: Database) -> list[str]:
    """What was removed from below a path that was added."""
    return [row[0] for row in database.rows("SELECT source FROM roots WHERE excluded")]


def is_below(source: str, folders: Iterable[str]) -> bool:
    """Whether a source is one of the paths, or in one of them."""
    return any(source == one or source.startswith(one.rstrip("/") + "/") for one in folders)
