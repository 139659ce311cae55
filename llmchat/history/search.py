"""Find messages by their text."""

import sqlite3

from llmchat.history import rows
from llmchat.history.database import Database
from llmchat.history.types import Hit

_TRIGRAM = 3
_BY_INDEX = """
SELECT messages.*, title, snippet(search, -1, '[', ']', '…', 40) AS snippet
FROM search
JOIN messages ON messages.id = search.rowid
JOIN sessions ON sessions.id = messages.session
WHERE search MATCH ? ORDER BY search.rowid DESC LIMIT ?
"""
_ONE_BY_ONE = """
SELECT messages.*, title,
    replace(substr(text, max(1, instr(lower(text), lower(?1)) - 30), 80), char(10), ' ') AS snippet
FROM messages JOIN sessions ON sessions.id = session
WHERE instr(lower(text), lower(?1)) > 0 ORDER BY messages.id DESC LIMIT ?2
"""


def find_messages(database: Database, text: str, limit: int) -> list[Hit]:
    """Messages that contain `text` in any case, newest first.

    The index holds trigrams; shorter texts are compared with every message.
    """
    if len(text) < _TRIGRAM:
        found = database.rows(_ONE_BY_ONE, (text, limit))
    else:
        quoted = '"' + text.replace('"', '""') + '"'
        found = database.rows(_BY_INDEX, (quoted, limit))
    return list(map(_hit, found))


def _hit(row: sqlite3.Row) -> Hit:
    return Hit(
        session=row["session"],
        title=row["title"],
        message=row["id"],
        role=row["role"],
        created=rows.moment(row["created"]),
        snippet=row["snippet"],
    )
