"""Every chat, kept in one SQLite file, with export and import."""

from llmchat.history.branch import BranchWriter
from llmchat.history.overview import Overview
from llmchat.history.store import History
from llmchat.history.types import Hit, Record, Session, SessionMessages, Turn

__all__ = [
    "BranchWriter",
    "History",
    "Hit",
    "Overview",
    "Record",
    "Session",
    "SessionMessages",
    "Turn",
]
