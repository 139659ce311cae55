"""What `llmchat chat` begins with: the session, the role, the options and the question."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmchat.attachments.given_files import GivenText, read_given
from llmchat.beginning import role_of
from llmchat.commands import one_shot
from llmchat.commands.chat_flags import ChatFlags
from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.models.sessions import options_of_session, unknown_model_note
from llmchat.roles import Role, settings_with_role, with_role
from llmchat.settings import Settings, World, resolve
from llmchat.tools.web.settings import WebSettings

if TYPE_CHECKING:
    from llmchat.history import History, Session


class Start(Struct, frozen=True):
    """A chat before its model is opened.

    given: the options of the command line, and those that open the model of an earlier session.
    sets: the options of the role; settings: of both. earlier: the session that is continued.
    """

    world: World
    flags: ChatFlags
    given: dict[str, Any]
    earlier: "Session | None"
    role: Role | None
    sets: dict[str, Any]
    settings: Settings

    @property
    def options(self) -> dict[str, Any]:
        """The options of the command line and of the role."""
        return with_role(self.sets, self.given)

    @property
    def opens(self) -> dict[str, Any]:
        """What the model of the earlier session was opened with."""
        return dict(self.earlier.opens) if self.earlier else {}

    @property
    def kept(self) -> Mapping[str, Any]:
        """The options that go before the settings of the earlier session."""
        return self.options if self.settings.origins["role"] == "flag" else self.given


def start(
    world: World,
    flags: ChatFlags,
    given: dict[str, Any],
    history: "History",
    note: Callable[[str], None],
) -> Start:
    """Find the session that the flags name, and its role."""
    settings = resolve(world, given)
    earlier = _earlier_session(history, flags.session, last=flags.continue_)
    role, sets = role_of(world, settings, earlier, note)
    if earlier:
        given = given | _flags_of_session(earlier, settings, world, quiet=flags.quiet)
    settings = settings_with_role(world, role, given, sets)
    return Start(world, flags, given, earlier, role, sets, settings)


class Asked(Struct, frozen=True):
    """A question with what comes with it. turns: the questions that the role asks after it.

    web: what --web may do; None without it.
    """

    question: Message
    files: list[GivenText]
    turns: tuple[str, ...] = ()
    web: WebSettings | None = None


def asked(start: Start, note: Callable[[str], None]) -> Asked | None:
    """The question of PROMPT, pipe and files; None where a chat opens.

    Raises an error for flags that have no effect before a model is loaded.
    """
    world, flags, role = start.world, start.flags, start.role
    files = read_given(world, flags.file or (), start.settings.options, note)
    words = None if role and role.once and start.earlier else role
    question = one_shot.question(world, flags.prompt, files, words)
    turns: tuple[str, ...] = ()
    if words and question:
        question, turns = words.questions(question, begun=False)
    _check(flags, question)
    if question is None:
        return None
    return Asked(question, files, turns, _web_settings(start) if flags.web else None)


def _check(flags: ChatFlags, question: Message | None) -> None:
    if flags.extract and not question:
        raise UsageError(
            "--extract takes a PROMPT or piped text",
            "in a chat, /copy and /save code take a code block by its number",
        )
    if flags.answers > 1 and not question:
        raise UsageError(
            "--answers takes a PROMPT or piped text", "`/regen` answers again in a chat"
        )
    if flags.answers > 1 and flags.extract:
        raise UsageError("--answers and --extract exclude each other", "--json gives all answers")
    if flags.map:
        one_shot.check_map(question)
    if flags.web and not question:
        raise UsageError("--web takes a PROMPT or piped text", "in a chat, use /web QUESTION")


def _web_settings(start: Start) -> WebSettings:
    """What --web may do. Raises an error before a model is loaded for it."""
    found = WebSettings.of(start.world, start.settings.options)
    found.access()
    return found


def _earlier_session(history: "History", name: str | None, *, last: bool) -> "Session | None":
    """The session that --session names, or the last one for --continue."""
    if name:
        return history.find(name)
    if not last:
        return None
    if earlier := history.latest():
        return earlier
    raise UsageError("there is no session to continue")


def _flags_of_session(
    earlier: "Session", settings: Settings, world: World, *, quiet: bool
) -> dict[str, Any]:
    """The flags that open the model of an imported session, or of one from an early version.

    Empty if the user names a model, or if the session's model is unknown here, which is noted.
    """
    if earlier.opens or settings.origins["model"] != "default":
        return {}
    known = options_of_session(earlier, world)
    if known is None and not quiet:
        print(f"note: {unknown_model_note(settings.options.model)}", file=world.stderr)
    return known or {}
