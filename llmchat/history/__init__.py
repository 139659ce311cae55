"""Every chat, kept in one SQLite file, and its ways out and in: export and import."""

from llmchat.history.branch import Line
from llmchat.history.store import History
from llmchat.history.types import Hit, Record, Session, SessionMessages

__all__ = ["History", "Hit", "Line", "Record", "Session", "SessionMessages"]
