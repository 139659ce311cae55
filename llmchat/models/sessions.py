"""Open the history, and reopen the model of a saved session."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmchat.errors import LlmchatError
from llmchat.presets import is_preset
from llmchat.roles import Role, find_role
from llmchat.settings import Settings, World

if TYPE_CHECKING:
    from llmchat.history import History, Session


def open_history(world: World, settings: Settings) -> "History":
    """The history that a chat is written to; in memory with --no-log."""
    from llmchat.history import History

    return History(None if settings.options.no_log else world.history_file, world.now)


def saved_history(world: World) -> "History":
    """The history for commands that read it; if there is none, an empty one without a file."""
    from llmchat.history import History

    return History(world.history_file if world.history_file.exists() else None, world.now)


def options_of_session(session: "Session", world: World) -> dict[str, Any] | None:
    """The options that open a session's model; None for an imported chat of an unknown model."""
    if session.opens:
        return dict(session.opens)
    # An imported file may name a preset only: it must not make llmchat open a folder or a repo.
    if session.imported and not is_preset(session.model, world.own_presets):
        return None
    return {"model": session.model}


def role_of_session(session: "Session", world: World, note: Callable[[str], None]) -> Role | None:
    """The role that a session keeps; None, with a note, where it cannot be used any more.

    A chat from a file of others may not choose one.
    """
    spec = "" if session.imported else str(session.settings.get("role", ""))
    if not spec:
        return None
    try:
        return find_role(spec, world.own_roles)
    except LlmchatError as error:
        note(f"this chat had the role `{spec}` and continues without it: {error.message}")
        return None


def unknown_model_note(instead: str) -> str:
    """The note on an imported chat whose model is unknown here."""
    return f"the chat was imported and names no model of this machine; it continues with {instead}"
