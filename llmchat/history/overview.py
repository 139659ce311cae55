"""Sessions as a list to choose from shows them, for histories of any size."""

import sqlite3

from msgspec import Struct

from llmchat.history import rows
from llmchat.history.database import Database

# Characters of a question and of an answer that are read.
_QUESTION, _ANSWER = 200, 2000

# A fork without a question of its own has the title of its original.
_OVERVIEWS = f"""
SELECT id, title, model, turns, updated, coalesce((
    SELECT substr(iif(text = '', input, text), 1, {_QUESTION}) FROM messages
    WHERE session = sessions.id AND role = 'user' ORDER BY id LIMIT 1
), '') AS question
FROM sessions WHERE tip IS NOT NULL ORDER BY updated DESC, rowid DESC LIMIT ?
"""
_LAST_ANSWER = f"""
{rows.PATH}
SELECT substr(text, 1, {_ANSWER}) AS answer FROM path JOIN messages ON messages.id = path.id
WHERE role = 'assistant' AND text <> '' LIMIT 1
"""


class Overview(Struct, frozen=True):
    """A session in a list. question: the beginning of the first one that was asked in it."""

    id: str
    title: str
    model: str
    turns: int
    updated: float
    question: str


def overviews(database: Database, limit: int | None) -> list[Overview]:
    """The sessions that have a message, most recently used first."""
    return list(map(_overview, database.rows(_OVERVIEWS, (-1 if limit is None else limit,))))


def last_answer(database: Database, session: str) -> str:
    """The beginning of a session's last answer; empty if it has none."""
    tips = database.rows("SELECT tip FROM sessions WHERE id = ?", (session,))
    found = database.rows(_LAST_ANSWER, (tips[0]["tip"],)) if tips else []
    return str(found[0]["answer"]) if found else ""


def _overview(row: sqlite3.Row) -> Overview:
    return Overview(
        row["id"],
        row["title"],
        row["model"],
        row["turns"],
        rows.moment(row["updated"]),
        row["question"],
    )
