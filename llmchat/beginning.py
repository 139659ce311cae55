"""Begin the chat of an open model: a new one, or an earlier session with its settings."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmchat.chat import Chat
from llmchat.models.sessions import role_of_session
from llmchat.roles import Role, chosen_role, kept_options
from llmchat.settings import Settings, World

if TYPE_CHECKING:
    from llmchat.history import History, Session
    from llmchat.models.open_model import OpenModel


def begin(
    opened: "OpenModel",
    history: "History",
    earlier: "Session | None",
    settings: Settings,
    given: Mapping[str, Any],
) -> Chat:
    """The chat of these options. given: those of them that were given for this chat alone.

    They go before a setting of the session; another model takes none of its settings.
    """
    talk = Chat(
        opened.preset,
        opened.engine,
        history,
        session=earlier.id if earlier else None,
        made_by=opened.made_by,
        opens=opened.opens,
    )
    if earlier and (earlier.opens == talk.opens or not given.get("model")):
        talk.restore_settings(
            {name: value for name, value in earlier.settings.items() if given.get(name) is None}
        )
    system = settings.options.system
    if system and talk.conversation.system != system:
        talk.instruct(system)
    return talk


def role_of(
    world: World, settings: Settings, earlier: "Session | None", note: Callable[[str], None]
) -> tuple[Role | None, dict[str, Any]]:
    """The role of a chat and the options that it sets.

    A flag goes before the role of an earlier session, which goes before a variable and the file.
    """
    if earlier and settings.origins["role"] != "flag":
        role = role_of_session(earlier, world, note)
        return role, kept_options(role) if role else {}
    role = chosen_role(settings.options.role, world.own_roles)
    return role, role.options() if role else {}
