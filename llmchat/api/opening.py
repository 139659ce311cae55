"""Opens chats for Python programs: the options of the command line as arguments."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar, overload

from llmchat import chat as chats
from llmchat.api.answering import log
from llmchat.api.chat import Chat
from llmchat.api.forms import Form, form_of
from llmchat.api.functions import FunctionTool
from llmchat.api.place import here
from llmchat.api.shared_model import SharedModel
from llmchat.attachments.documents import Documents
from llmchat.attachments.given_files import read_given
from llmchat.beginning import begin, role_of
from llmchat.calls import Call
from llmchat.errors import UsageError
from llmchat.history import History, Session
from llmchat.memory.facts import Facts
from llmchat.memory.meaning import Meaning
from llmchat.memory.of_chat import ChatMemory
from llmchat.models import saved_kv
from llmchat.models.embedding import embedder_here
from llmchat.models.opener import ModelOpener
from llmchat.models.sessions import options_of_session, saved_history
from llmchat.roles import Role, with_role
from llmchat.settings import World, checked_option, resolve
from llmchat.tools import Tool
from llmchat.tools.opening import open_toolbox
from llmchat.tools.permission import Reply
from llmchat.tools.toolbox import Toolbox

T = TypeVar("T")
# A function, the name of a tool or a group, or a tool itself.
AnyTool = Callable[..., Any] | str | Tool
Confirm = Callable[[Call], bool]
LAST = "last"


@overload
def open(
    model: str | None = None, *, schema: type[T], session: str | None = None, save: bool = False,
    system: str | None = None, tools: Iterable[AnyTool] = (), confirm: Confirm | None = None,
    world: World | None = None, **options: Any,
) -> Chat[T]: ...  # fmt: skip
@overload
def open(
    model: str | None = None, *, schema: None = None, session: str | None = None,
    save: bool = False, system: str | None = None, tools: Iterable[AnyTool] = (),
    confirm: Confirm | None = None, world: World | None = None, **options: Any,
) -> Chat[None]: ...  # fmt: skip
@overload
def open(
    model: str | None = None, *, schema: Any, session: str | None = None, save: bool = False,
    system: str | None = None, tools: Iterable[AnyTool] = (), confirm: Confirm | None = None,
    world: World | None = None, **options: Any,
) -> Chat[Any]: ...  # fmt: skip
def open(
    model: str | None = None,
    *,
    session: str | None = None,
    save: bool = False,
    system: str | None = None,
    schema: Any = None,
    tools: Iterable[AnyTool] = (),
    confirm: Confirm | None = None,
    world: World | None = None,
    **options: Any,
) -> Chat[Any]:
    """Load a model and begin a chat with it. Raises NotPulled for one that must be pulled first.

    model: a preset, a Hub repo, a folder or a .gguf file; by default that of the settings.
    session: continue a saved chat, by the beginning of its id or by its title; `last` is the most
    recent one. save: keep the chat as a session. system: the system text.
    schema: the form of all answers: a pydantic model, a msgspec Struct, a dataclass or another
    type; a JSON Schema as a dict; or a text as after `/schema`.
    tools: functions, and names of built-in tools, which run if `allow=[…]` names them.
    confirm: a function that decides about all other calls of built-in tools.
    options: every option that a flag of `llmchat chat` sets, such as `temperature=0`, `max_tokens`,
    `role`, `adapter`, `weights`, `device`, `context`, `url` or `docs`.
    world: folders, environment and streams, by default those of the process.
    """
    from llmchat.process.startup import disable_telemetry, limit_spinning

    limit_spinning()
    disable_telemetry()
    form = form_of(schema)
    given = checked(options) | {"model": model, "system": system}
    if schema is not None:
        given["schema"] = as_option(schema, form)
    offered = list(tools)
    opening = Opening(world or here(), given, offered, confirm, save=save or session is not None)
    return opening.open(form, session)


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names, converted. Raises UsageError for an unknown one or its value."""
    for name in ("no_log", "tool"):
        if name in options:
            instead = {"no_log": "save=False", "tool": "tools=[…]"}[name]
            raise UsageError(f"there is no option `{name}` in Python", f"use {instead}")
    given = {name: value for name, value in options.items() if value is not None}
    return dict(checked_option(name, value) for name, value in given.items())


def as_option(schema: Any, form: Form[Any]) -> str:
    """What `schema=` was given, as the option `schema` has it."""
    if isinstance(schema, str):
        return schema
    structure = form.structure
    return f"{structure.kind} {structure.source}".strip() if structure else "off"


class Opening:
    """How the chats of one `open` are made."""

    def __init__(
        self,
        world: World,
        given: Mapping[str, Any],
        tools: Sequence[AnyTool],
        confirm: Confirm | None,
        *,
        save: bool,
    ):
        others: list[Any] = [one for one in tools if not isinstance(one, str)]
        self.functions = [FunctionTool(one) for one in others if not hasattr(one, "run")]
        names = tuple(one for one in tools if isinstance(one, str))
        self._given = dict(given) | ({"tool": names} if names else {})
        self._others: list[Tool] = [one for one in others if hasattr(one, "run")]
        self._confirm, self._save = confirm, save
        self._settings = resolve(world, self._given)
        offline = self._settings.options.offline
        self.world = world.in_offline_mode() if offline else world
        self.role: Role | None = None
        self._kept: Mapping[str, Any] = self._given

    def open(self, form: Form[Any], session: str | None) -> Chat[Any]:
        """Load the model, and begin a chat or continue a session."""
        earlier = self._earlier(session) if session else None
        sets = self._use_role(earlier)
        opens = dict(earlier.opens) if earlier else {}
        if earlier and not earlier.opens and not self._given.get("model"):
            self._given |= options_of_session(earlier, self.world) or {}
        name = earlier.id if earlier else None
        opener = ModelOpener(self.world, self._given, name, opens, sets)
        model = SharedModel(opener.open())
        try:
            return self.chat(model, form, earlier)
        except BaseException:
            model.opened.engine.unload()
            raise

    def _use_role(self, earlier: Session | None) -> dict[str, Any]:
        """Ask in the role of the options, or of the session; returns the options that it sets."""
        self.role, sets = role_of(self.world, self._settings, earlier, log.warning)
        filled = with_role(sets, self._given)
        by_argument = self._settings.origins["role"] == "flag"
        self._kept = filled if by_argument else self._given
        self._settings = resolve(self.world, filled)
        return sets

    def chat(
        self,
        model: SharedModel,
        form: Form[Any],
        earlier: Session | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Chat[Any]:
        """A chat with a model that is loaded. settings: changed in the chat that it comes from."""
        with ExitStack() as stack:
            history = self.saved_history(stack) if self._save else stack.enter_context(_unsaved())
            talk = begin(model.opened, history, earlier, self._settings, self._kept)
            talk.role = self.role.spec if self.role else ""
            if settings:
                talk.set(settings)
            talk.tools = self._toolbox(stack)
            talk.memory = self._memory(talk)
            documents = self._documents(stack, talk, earlier)
            if form.structure is None:
                form = form_of(talk.sampling.structure)
            return Chat(self, model, talk, form, documents, stack.pop_all())
        raise AssertionError

    def saved_history(self, stack: ExitStack) -> History:
        """The history of this machine, until the chat is closed."""
        return stack.enter_context(
            History(self.world.history_file, self.world.now, any_thread=True)
        )

    def texts_of(self, files: Sequence[str]) -> list[tuple[str, str]]:
        """Name and text of files, folders, patterns or addresses."""
        found = read_given(self.world, files, self._settings.options, log.warning)
        return [(one.name, one.text) for one in found]

    def use_loop(self, loop: AbstractEventLoop | None) -> None:
        """Where tools that are coroutines run."""
        for function in self.functions:
            function.loop = loop

    def keep_cache(self, talk: chats.Chat) -> None:
        """Keep the KV cache of a session, so that it continues without a prefill."""
        saved_kv.keep(talk.engine, talk.session, talk.made_by, self.world)

    def _earlier(self, session: str) -> Session:
        with saved_history(self.world) as history:
            if session != LAST:
                return history.find(session)
            if latest := history.latest():
                return latest
        raise UsageError("there is no session to continue")

    def _toolbox(self, stack: ExitStack) -> Toolbox | None:
        """The tools; None where there are none, so that prompts offer nothing."""
        options = self._settings.options
        if not (self.functions or self._others or options.tool or options.mcp):
            return None
        box = stack.enter_context(open_toolbox(self.world, self._settings))
        if self._confirm is not None:
            box.permissions.ask = partial(_ask, self._confirm)
        own: list[Tool] = [*self.functions, *self._others]
        box.add(own)
        for tool in own:
            box.permissions.allow(tool.name)
        for note in box.take_notes():
            log.warning(note)
        return box

    def _memory(self, talk: chats.Chat) -> ChatMemory:
        use = self._settings.options.memory
        meaning = Meaning(partial(embedder_here, self.world))
        memory = ChatMemory(Facts.of(self.world), use, meaning)
        memory.begin(len(talk.conversation.messages))
        return memory

    def _documents(self, stack: ExitStack, talk: chats.Chat, earlier: Session | None) -> Documents:
        names = self._settings.options.docs
        documents = stack.enter_context(Documents(self.world, names, keep=self._save))
        documents.note = log.warning
        if earlier and not self._given.get("docs"):
            documents.resume(earlier)
        talk.docs = documents.named
        return documents


def _unsaved() -> History:
    return History(None, any_thread=True)


def _ask(confirm: Confirm, call: Call, tool: Tool) -> Reply:
    return Reply("once" if confirm(call) else "no")


def sessions(
    limit: int | None = None, *, tag: str = "", world: World | None = None
) -> list[Session]:
    """The saved chats on this machine, most recently used first."""
    with saved_history(world or here()) as history:
        return history.sessions(limit, tag)
