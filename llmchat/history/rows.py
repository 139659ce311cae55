"""Turn database rows into values, and walk the tree of messages."""

import sqlite3
from typing import Any

import msgspec

from llmchat.conversation import FoundPassage, Message
from llmchat.history.database import Database
from llmchat.history.import_fields import LATEST
from llmchat.history.types import Record, Session

_TITLE_LENGTH = 60

# The ids of a branch, from the message ?1 back to the first one. UNION keeps each id once, so that
# a loop of parents in a damaged file ends.
PATH = """
WITH RECURSIVE path(id) AS (
    SELECT ?1
    UNION
    SELECT messages.parent FROM messages JOIN path ON messages.id = path.id
    WHERE messages.parent IS NOT NULL
)
"""
_PATH_ROWS = f"{PATH} SELECT messages.* FROM path JOIN messages ON messages.id = path.id"
# Every descendant of the session's first message: its branches, and those of its forks.
_TREE = """
WITH RECURSIVE tree(id) AS (
    SELECT ?
    UNION
    SELECT messages.id FROM messages JOIN tree ON messages.parent = tree.id
)
SELECT messages.* FROM tree JOIN messages ON messages.id = tree.id ORDER BY messages.id
"""


def path_to(database: Database, tip: int | None) -> list[sqlite3.Row]:
    """The messages from the first one to `tip`. Where parents form a loop, each message once."""
    known = {row["id"]: row for row in database.rows(_PATH_ROWS, (tip,))}
    backwards: list[sqlite3.Row] = []
    while tip in known:
        backwards.append(known.pop(tip))
        tip = backwards[-1]["parent"]
    return backwards[::-1]


def tree(database: Database, first: int) -> list[sqlite3.Row]:
    """The message `first` and all of its descendants, in the order of their ids."""
    return database.rows(_TREE, (first,))


def title(message: Message) -> str:
    """The first words of a question, as the title of its session."""
    words = " ".join((message.text or message.input).split())
    if len(words) <= _TITLE_LENGTH:
        return words
    cut = words[:_TITLE_LENGTH].rpartition(" ")[0] or words[:_TITLE_LENGTH]
    return f"{cut}…"


def message(row: sqlite3.Row) -> Message:
    details = msgspec.json.decode(row["details"])
    files = tuple((str(name), int(length)) for name, length in details.get("files", ()))
    return Message(
        row["role"],
        row["text"],
        row["input"],
        row["mark"],
        row["covers"],
        calls=tuple(details.get("calls", ())),
        files=files,
        call_id=details.get("call_id", ""),
        passages=msgspec.convert(details.get("passages", ()), tuple[FoundPassage, ...]),
    )


def record(row: sqlite3.Row) -> Record:
    details = msgspec.json.decode(row["details"])
    created = moment(row["created"])
    return Record(row["id"], row["parent"], message(row), row["state"], created, details)


def session(row: sqlite3.Row) -> Session:
    tags, opens, settings = (
        msgspec.json.decode(row[name]) for name in ("tags", "opens", "settings")
    )
    return Session(
        id=row["id"],
        title=row["title"],
        model=row["model"],
        turns=row["turns"],
        tokens=row["tokens"],
        tags=tuple(tags),
        created=moment(row["created"]),
        updated=moment(row["updated"]),
        opens=opens,
        settings=settings,
        imported=row["source"] is not None,
    )


def moment(value: Any) -> float:
    """Seconds since 1970 within the range of dates; 0 (unknown) for anything else."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    return number if 0 < number <= LATEST else 0.0
