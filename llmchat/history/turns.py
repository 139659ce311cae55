"""What was said, turn by turn, on every branch: questions with their answers."""

from collections.abc import Iterable

from llmchat.history import rows
from llmchat.history.database import Database
from llmchat.history.types import Turn

# Answers, and questions without one.
_IDS = """
SELECT session, id FROM messages
WHERE text <> '' AND (role = 'assistant' OR (role = 'user'
    AND NOT EXISTS (SELECT 1 FROM messages AS next WHERE next.parent = messages.id)))
"""
_MESSAGE = "SELECT id, parent, role, text, session, created FROM messages WHERE id = ?"


def turn_ids(database: Database) -> set[tuple[str, int]]:
    """The session and the last message of each turn."""
    return {(row["session"], row["id"]) for row in database.rows(_IDS)}


def turns(database: Database, ids: Iterable[int]) -> list[Turn]:
    """The turns that end with these messages; one that is gone is left out."""
    titles = {row["id"]: row["title"] for row in database.rows("SELECT id, title FROM sessions")}
    found = (_turn(database, one, titles) for one in ids)
    return [turn for turn in found if turn is not None]


def _turn(database: Database, last: int, titles: dict[str, str]) -> Turn | None:
    found = database.rows(_MESSAGE, (last,))
    if not found:
        return None
    row = found[0]
    answer = row["text"] if row["role"] == "assistant" else ""
    question = _question(database, last)
    title = titles.get(row["session"], "")
    return Turn(last, row["session"], title, question, answer, rows.moment(row["created"]))


def _question(database: Database, message: int | None) -> str:
    """The text of the nearest question at or before a message."""
    seen: set[int] = set()
    while message is not None and message not in seen:
        seen.add(message)
        found = database.rows(_MESSAGE, (message,))
        if not found:
            return ""
        if found[0]["role"] == "user":
            return str(found[0]["text"])
        message = found[0]["parent"]
    return ""
