"""Rows of the database as values, and how the tree of messages is walked."""

import sqlite3
from typing import Any

import msgspec

from llmchat.conversation import Message
from llmchat.history.database import Database
from llmchat.history.import_fields import LATEST
from llmchat.history.types import Record, Session

_TITLE_LENGTH = 60

# UNION keeps each id once, so that a loop of parents in a damaged file ends.
_LINE = """
WITH RECURSIVE line(id) AS (
    SELECT ?
    UNION
    SELECT messages.parent FROM messages JOIN line ON messages.id = line.id WHERE messages.parent IS NOT NULL
)
SELECT messages.* FROM line JOIN messages ON messages.id = line.id
"""
# Every message that shares the session's first message: its branches, and those of its forks.
_TREE = """
WITH RECURSIVE tree(id) AS (
    SELECT ?
    UNION
    SELECT messages.id FROM messages JOIN tree ON messages.parent = tree.id
)
SELECT messages.* FROM tree JOIN messages ON messages.id = tree.id ORDER BY messages.id
"""


def line(database: Database, tip: int | None) -> list[sqlite3.Row]:
    """The messages from the first one to `tip`. Where parents form a loop, each message once."""
    known = {row["id"]: row for row in database.rows(_LINE, (tip,))}
    backwards: list[sqlite3.Row] = []
    while tip in known:
        backwards.append(known.pop(tip))
        tip = backwards[-1]["parent"]
    return backwards[::-1]


def tree(database: Database, first: int) -> list[sqlite3.Row]:
    """The message `first` and all that grew from it, in the order of their ids."""
    return database.rows(_TREE, (first,))


def title(message: Message) -> str:
    """The first words of a question, cut between words."""
    words = " ".join((message.text or message.input).split())
    if len(words) <= _TITLE_LENGTH:
        return words
    cut = words[:_TITLE_LENGTH].rpartition(" ")[0] or words[:_TITLE_LENGTH]
    return f"{cut}…"


def message(row: sqlite3.Row) -> Message:
    files = msgspec.json.decode(row["details"]).get("files", ()) if row["input"] else ()
    named = tuple((str(name), int(length)) for name, length in files)
    return Message(row["role"], row["text"], row["input"], row["mark"], row["covers"], files=named)


def record(row: sqlite3.Row) -> Record:
    return Record(
        row["id"],
        row["parent"],
        message(row),
        row["state"],
        moment(row["created"]),
        msgspec.json.decode(row["details"]),
    )


def session(row: sqlite3.Row) -> Session:
    tags, opens, settings = (
        msgspec.json.decode(row[name]) for name in ("tags", "opens", "settings")
    )
    times = moment(row["created"]), moment(row["updated"])
    return Session(
        row["id"],
        row["title"],
        row["model"],
        row["turns"],
        row["tokens"],
        tuple(tags),
        *times,
        opens,
        settings,
        row["source"] is not None,
    )


def moment(value: Any) -> float:
    """Seconds since 1970, as a date can show them; 0, which means unknown, for anything else."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    return number if 0 < number <= LATEST else 0.0
