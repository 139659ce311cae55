"""Delete sessions without losing messages that other sessions share."""

from collections.abc import Sequence

from llmchat.history.database import Database

# Messages of deleted sessions, except the ancestors of messages that remaining sessions hold.
_DELETE_UNNEEDED = """
WITH RECURSIVE needed(id) AS (
    SELECT tip FROM sessions WHERE tip IS NOT NULL
    UNION
    SELECT parent FROM messages
    WHERE parent IS NOT NULL AND session IN (SELECT id FROM sessions)
    UNION
    SELECT messages.parent FROM messages JOIN needed ON messages.id = needed.id
    WHERE messages.parent IS NOT NULL
)
DELETE FROM messages WHERE session NOT IN (SELECT id FROM sessions) AND id NOT IN needed
"""
# A remaining session that ends at a message or owns one of its children.
_HEIR = """
SELECT id FROM sessions WHERE tip = :message
UNION ALL
SELECT session FROM messages
WHERE parent = :message AND session IN (SELECT id FROM sessions)
LIMIT 1
"""
_ORPHANS = "SELECT id FROM messages WHERE session NOT IN (SELECT id FROM sessions) ORDER BY id DESC"


def delete_sessions(database: Database, sessions: Sequence[str]) -> int:
    """Within a transaction: remove sessions and the messages that no other session shares.

    Shared messages pass to a session that shares them. Returns how many messages were removed.
    """
    # Children point at their parents; the pointers are checked when the transaction ends.
    database.execute("PRAGMA defer_foreign_keys = ON")
    database.executemany("DELETE FROM sessions WHERE id = ?", [(one,) for one in sessions])
    database.execute(_DELETE_UNNEEDED)
    removed = int(database.execute("SELECT changes()").fetchone()[0])
    _pass_to_heirs(database)
    return removed


def _pass_to_heirs(database: Database) -> None:
    orphans = database.rows(_ORPHANS)
    # Newest first, children mostly come before their parents, so that each parent finds its heir
    # in one pass. Where ids are in another order, the next pass finds the rest.
    while orphans:
        for row in orphans:
            for heir in database.rows(_HEIR, {"message": row["id"]}):
                database.execute(
                    "UPDATE messages SET session = ? WHERE id = ?", (heir["id"], row["id"])
                )
        before, orphans = orphans, database.rows(_ORPHANS)
        if len(before) == len(orphans):
            return
