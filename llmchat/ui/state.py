"""The state of a REPL, which the slash commands read and change."""

import gc
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmchat.attachments.documents import Documents
from llmchat.attachments.given_files import GivenText, is_several, read_given
from llmchat.attachments.large_material import with_material
from llmchat.chat import Chat, Event
from llmchat.conversation import Message, material
from llmchat.engines.bounded_count import count_within
from llmchat.engines.loading_engine import LoadingEngine
from llmchat.errors import OutOfResources, UsageError
from llmchat.history import Session
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.models.sessions import options_of_session, role_of_session, unknown_model_note
from llmchat.roles import Role, kept_options
from llmchat.settings import World
from llmchat.ui import printing


@dataclass
class ReplState:
    """A chat on a terminal, and what belongs to it.

    documents: what is searched for each question; attached: texts by file name, sent with the next
    message; given: the documents that they are from; show_thinking: whether the model's thinking
    is printed; role: what questions are asked in; begins_role: whether the next one is its first;
    turns: its questions that follow the last one.
    """

    chat: Chat
    world: World
    opener: ModelOpener
    documents: Documents
    plain: bool = False
    show_thinking: bool = True
    role: Role | None = None
    begins_role: bool = False
    turns: tuple[str, ...] = ()
    attached: dict[str, str] = field(default_factory=dict)
    given: dict[str, GivenText] = field(default_factory=dict)
    # The REPL replaces these: the terminal's width, edit a line in place (None: cancelled),
    # edit a text in the user's editor, print an answer, ask yes or no (None: nobody can answer).
    width: Callable[[], int] = lambda: 80
    edit_line: Callable[[str, str], str | None] = lambda label, text: None
    edit_text: Callable[[str], str] = lambda text: text
    print_answer: Callable[[str], None] = lambda text: None
    confirm: Callable[[str], bool] | None = None

    def print(self, line: str) -> None:
        """Print a line of the program's own."""
        printing.print_text(self.world, line, self.width())

    def print_note(self, line: str) -> None:
        """Print a dimmed line about what happened."""
        printing.print_note(self.world, line, self.width())

    def switch(self, **changes: object) -> None:
        """Switch the model, adapter or weights and keep the conversation.

        An error leaves everything as it was. Settings changed by hand are kept for the same
        model, not for another one.
        """
        live = None
        if set(changes) == {"adapter"}:
            live = self.opener.adapt(self.chat.engine, str(changes["adapter"]))
        opened = live or self._open(lambda: self.opener.open(waiting=True, **changes))
        settings, sampling = self.chat.settings, self.chat.sampling
        self._hand_over(opened)
        if "model" not in changes:
            self.chat.sampling = sampling
            self.chat.set(settings)

    def load(self, session: Session) -> None:
        """Continue a saved chat with its model and settings.

        An error of its model is raised and leaves everything as it was.
        """
        opens = options_of_session(session, self.world)
        if opens is None:
            self.print(f"note: {unknown_model_note(self.chat.preset.name)}")
        elif not self._has_model_of(session):
            opened = self._open(lambda: self.opener.open_as(session.id, opens))
            self.chat.restart()
            self._hand_over(opened)
        self.open_session(session)

    def open_session(self, session: Session) -> None:
        """Continue a saved chat with the model that is open, its settings, role and documents."""
        self._resume_role(session)
        self.chat.open(session.id, session.settings)
        self.documents.resume(session)
        self.chat.docs = self.documents.named

    def take_role(self, role: Role | None) -> None:
        """Use a role from now on, or none; a model that it names is opened.

        An error leaves everything as it was. What was set by hand stays, except what the role sets.
        """
        old = self.role.options().get("system") if self.role else None
        sets = role.options() if role else {}
        settings, engine = self.chat.settings, self.chat.engine
        self._open_role(sets)
        if self.chat.engine is engine:
            self.chat.set({name: value for name, value in settings.items() if name not in sets})
        system, current = self.chat.preset.system, self.chat.conversation.system
        if current != system and ("system" in sets or current == old):
            self.chat.instruct(system)
        self.role, self.begins_role = role, True
        self.chat.use_role(role.spec if role else "")

    def _resume_role(self, session: Session) -> None:
        """Use the role that a saved chat had, with the model that is open."""
        role = role_of_session(session, self.world, self.print_note)
        if role != self.role:
            # The chat that is left must not be stored with the settings of the other one.
            self.chat.restart()
            self._open_role(kept_options(role) if role else {})
        self.role, self.begins_role = role, False
        self.chat.role = role.spec if role else ""

    def _open_role(self, sets: Mapping[str, Any]) -> None:
        """Continue with the options of a role below the flags, its tools and its documents."""
        before, after = self.opener.options(), self.opener.options_with(sets)
        tools = [name for name in after.tool if name not in before.tool]
        docs = [name for name in after.docs if name not in self.documents.names]
        try:
            self._turn_on(tools, docs)
            opened = self._open(lambda: self.opener.open_role(self.chat.engine, sets))
        except BaseException:
            self._turn_off(tools, docs)
            raise
        self._turn_off(
            [name for name in before.tool if name not in after.tool],
            [name for name in before.docs if name not in after.docs],
        )
        self._hand_over(opened)
        self.chat.search_docs(self.documents.named)

    def _turn_on(self, tools: Iterable[str], docs: Iterable[str]) -> None:
        for name in tools:
            if self.chat.tools is None:
                raise UsageError("this chat has no tools")
            self.chat.tools.turn_on(name)
        for name in docs:
            self.documents.use(name)

    def _turn_off(self, tools: Iterable[str], docs: Iterable[str]) -> None:
        for name in tools if self.chat.tools else ():
            with suppress(UsageError):
                self.chat.tools.turn_off(name)  # type: ignore[union-attr]
        for name in docs:
            with suppress(UsageError):
                self.documents.stop(name)

    def _has_model_of(self, session: Session) -> bool:
        if session.opens:
            return session.opens == self.chat.opens
        return session.model == self.chat.preset.name

    def _hand_over(self, opened: OpenModel) -> None:
        self.chat.switch_model(opened.preset, opened.engine, opened.made_by, opened.opens)

    def _open(self, open_other: Callable[[], OpenModel]) -> OpenModel:
        """Load another model, first while this one stays in memory, then in its place.

        If it does not fit even alone, this model is loaded again when it is next used.
        """
        try:
            return open_other()
        except OutOfResources:
            self.chat.engine = self.opener.open_later().engine
            gc.collect()
            return open_other()

    def count(self, text: str) -> int | None:
        """Tokens of a text; None while the model is still loading."""
        engine = self.chat.engine
        if isinstance(engine, LoadingEngine) and engine.wrapped is None:
            return None
        return engine.count(text)

    def ask(self, text: str) -> Generator[Event]:
        """The answer to a text, with what is attached and what the documents say about it.

        An error leaves what is attached.
        """
        attached = dict(self.attached)
        try:
            material, files = self.take_attached()
            question = Message("user", text, material, files=files)
            known = {one.name: one.document for one in self.given.values()}
            in_role = self._in_role(question)
            asked = with_material(self.chat, in_role, self.documents, known)
            return self.chat.ask(asked)
        except BaseException:
            self.attached |= attached
            raise

    def take_turns(self) -> tuple[str, ...]:
        """The questions of the role that follow the last one, which are then not kept."""
        turns, self.turns = self.turns, ()
        return turns

    def _in_role(self, question: Message) -> Message:
        """A question in the words of the role, whose further turns wait for its answer."""
        begun = self.chat.conversation.question >= 0 and not self.begins_role
        self.turns, self.begins_role = (), False
        if self.role:
            question, self.turns = self.role.questions(question, begun=begun)
        return question

    def attach(self, name: str) -> int:
        """Attach what a name means to the next message; returns its tokens."""
        given = self.read(name)
        text = "\n\n".join(one.text for one in given)
        tokens = count_within(self.chat.engine, text, self.chat.engine.context)
        self.attach_given(name, given)
        return tokens

    def attach_given(self, name: str, given: Sequence[GivenText]) -> None:
        """Attach texts that were read for a name: the file itself, or those of a folder."""
        several = is_several(name)
        for one in given:
            key = one.name if several else name
            self.attached[key], self.given[key] = one.text, one

    def read(self, name: str) -> list[GivenText]:
        """Read a file, a folder, a pattern or an address.

        `-` is a file name here, because stdin is the keyboard.
        """
        options = self.opener.options()
        return read_given(self.world, ["./-" if name == "-" else name], options, self.print_note)

    def take_attached(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """Return the attached files as one message's material, and detach them."""
        texts = [(self._shown(name), text) for name, text in self.attached.items()]
        self.attached.clear()
        if len(texts) > 1:
            texts = [(name, _headed(name, text)) for name, text in texts]
        return material(texts)

    def _shown(self, name: str) -> str:
        given = self.given.get(name)
        return given.name if given else Path(name).name


def _headed(name: str, text: str) -> str:
    """A text below its name; those of folders have it."""
    return text if text.startswith(f"{name}:\n") else f"{name}:\n{text}"


def paths_starting_with(word: str) -> Iterable[str]:
    """Complete a path: the files and folders that begin with `word`, folders with a `/`."""
    path = Path(word).expanduser()
    folder, start = (path, "") if word.endswith("/") or not word else (path.parent, path.name)
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    lead = word[: len(word) - len(start)]
    for entry in entries:
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if entry.name.startswith(start) and not hidden:
            yield f"{lead}{entry.name}{'/' if entry.is_dir() else ''}"
