"""A chat as a Python program has it: `say`, `ask` and `stream`."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from msgspec.structs import replace

from llmchat import chat as chats
from llmchat.acting import ToolStarted
from llmchat.answer_report import SentWindow
from llmchat.api.answer import Answer, GrowingAnswer
from llmchat.api.forms import Form, form_of
from llmchat.api.shared_model import SharedModel
from llmchat.api.stream import Events, Pieces, Slot
from llmchat.chat import Event
from llmchat.conversation import Message, material
from llmchat.errors import UsageError, did_you_mean
from llmchat.models.open_model import OpenModel
from llmchat.models.structures import check_for
from llmchat.output.formatting import counted
from llmchat.presets import adjust, setting_names
from llmchat.tools.toolbox import Result

if TYPE_CHECKING:
    from llmchat.history import History
    from llmchat.ui.documents import Documents

T = TypeVar("T")
S = TypeVar("S")
# One text, or texts by their names.
Material = str | Mapping[str, str]

log = logging.getLogger("llmchat")


class Maker(Protocol):
    """How the chats of one `open` are made."""

    def chat(
        self, model: SharedModel, form: Form[Any], *, settings: Mapping[str, Any]
    ) -> "Chat[Any]":
        """Another chat with the same model, tools and options."""
        ...

    def saved_history(self, stack: ExitStack) -> "History":
        """The history of this machine, until the stack is closed."""
        ...

    def texts_of(self, files: Sequence[str]) -> list[tuple[str, str]]:
        """Name and text of files, folders, patterns or addresses."""
        ...

    def use_loop(self, loop: AbstractEventLoop | None) -> None:
        """Where tools that are coroutines run; None: each in a loop of its own."""
        ...

    def keep_cache(self, talk: chats.Chat) -> None:
        """Keep the KV cache of a session, so that it goes on without a prefill."""
        ...


class Chat(Generic[T]):
    """A conversation with a model on this machine. `llmchat.open` makes one.

    It is in memory until `save`, unless it was opened with `save=True` or a session. `close`, or a
    `with` block, frees the model. T is the type that was given as `schema=`.
    """

    def __init__(
        self,
        opening: "Maker",
        model: SharedModel,
        talk: chats.Chat,
        form: Form[T],
        documents: "Documents",
        closing: ExitStack,
    ):
        """closing: what ends with the chat."""
        self._opening, self._model, self._talk, self._form = opening, model, talk, form
        self._documents, self._closing = documents, closing
        self._running: Slot | None = None
        self._answer: Answer[Any] | None = None
        self._closed = False
        model.use()

    # Ask

    def say(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> Pieces:
        """Ask, and iterate over the text of the answer while it is written.

        input, files: material for the question. schema: the form of this answer. settings: for this
        answer alone, such as `temperature=0` or `max_tokens=50`. Nothing is asked before the first
        piece is taken; an iteration that is left early cancels the answer.
        """
        asked = self._asked(text, input, files, schema, settings)
        return Pieces(lambda slot: self._pieces(slot, *asked))

    @overload
    def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: None = None, **settings: Any,
    ) -> Answer[T]: ...  # fmt: skip
    @overload
    def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: type[S], **settings: Any,
    ) -> Answer[S]: ...  # fmt: skip
    @overload
    def ask(
        self, text: str, *, input: Material = "", files: Sequence[str | Path] = (),
        schema: Any, **settings: Any,
    ) -> Answer[Any]: ...  # fmt: skip
    def ask(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> Answer[Any]:
        """Ask, and return the whole answer. The arguments are those of `say`."""
        return whole(self.stream(text, input=input, files=files, schema=schema, **settings))

    def stream(
        self,
        text: str,
        *,
        input: Material = "",
        files: Sequence[str | Path] = (),
        schema: Any = None,
        **settings: Any,
    ) -> Events:
        """Ask, and iterate over all that happens. The arguments are those of `say`."""
        asked = self._asked(text, input, files, schema, settings)
        return Events(lambda slot: self._events(slot, *asked))

    def again(self, hint: str = "", **settings: Any) -> Answer[T]:
        """Answer the last question again. hint: what to do differently this time."""
        return whole(self.answering_again(hint, **settings))

    def answering_again(self, hint: str = "", **settings: Any) -> Events:
        """The events of `again`."""
        self._check_open()
        form, changed = self._form, _checked(settings)
        return Events(
            lambda slot: self._events(slot, lambda talk: talk.regenerate(hint), form, changed)
        )

    # The conversation

    @property
    def answer(self) -> Answer[Any] | None:
        """The last answer; None before the first one."""
        return self._answer

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, from first to last."""
        return self._talk.conversation.messages

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._talk.preset.name

    @property
    def window(self) -> SentWindow:
        """What the next question will be sent with, and what will be left out."""
        return SentWindow.of(self._talk.next_window())

    def instruct(self, system: str) -> None:
        """Set the system text for the following answers."""
        self._talk.instruct(system)

    def set(self, **settings: Any) -> None:
        """Change settings for the following answers, such as `temperature=0`."""
        self._talk.set(_checked(settings))

    def undo(self, turns: int = 1) -> None:
        """Remove the last questions and their answers; a saved session keeps them as a branch."""
        self._talk.undo(turns)

    def new(self) -> "Chat[T]":
        """An empty chat with the same model, tools and settings, in the same memory."""
        self._check_open()
        return self._opening.chat(self._model, self._form, settings=self._talk.settings)

    # The session

    @property
    def session(self) -> str | None:
        """Id of the saved session; None where the chat is not saved, or empty."""
        return self._talk.session if self._talk.history.path else None

    def save(self, title: str = "") -> str:
        """Keep the chat, and all that follows, as a session; returns its id.

        `llmchat.open(session=…)` and `llmchat chat --session` continue it.
        """
        session = self._talk.session
        if session is None:
            raise UsageError("the chat is empty", "save=True in `open` saves it from the beginning")
        if self._talk.history.path is None:
            session = self._talk.start_saving(self._opening.saved_history(self._closing))
        if title:
            self._talk.history.rename(session, title)
        return session

    @contextmanager
    def lent(self) -> Iterator[tuple[OpenModel, Form[T]]]:
        """The model with the settings of this chat, and its form; meanwhile no chat uses it."""
        self._check_open()
        talk, slot = self._talk, _Batch()
        preset = replace(talk.preset, sampling=talk.sampling)
        self._model.take_turn(slot)
        try:
            yield OpenModel(preset, talk.engine, talk.made_by, talk.opens), self._form
        finally:
            self._model.end_turn(slot)

    def use_loop(self, loop: AbstractEventLoop | None) -> None:
        """Where tools that are coroutines run; None: each in a loop of its own."""
        self._opening.use_loop(loop)

    def close(self) -> None:
        """End the chat; the last chat of a model frees its memory. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._running is not None:
            self._running.close()
        try:
            if self.session:
                self._opening.keep_cache(self._talk)
            self._closing.close()
        finally:
            self._model.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        turns = sum(message.role == "user" for message in self.messages)
        return f"<llmchat.Chat {self.model}, {counted(turns, 'question')}>"

    def _repr_html_(self) -> str:
        from llmchat.api.notebook import chat_html

        return chat_html(self.model, self.messages)

    # The path of an answer

    def _asked(
        self,
        text: str,
        input: Material,
        files: Sequence[str | Path],
        schema: Any,
        settings: Mapping[str, Any],
    ) -> "tuple[_Begin, Form[Any], Mapping[str, Any]]":
        """What an answer begins with, its form and its settings. Raises UsageError."""
        self._check_open()
        form = self._form if schema is None else form_of(schema)
        check_for(form.structure, self._talk.preset.engine, self._talk.engine)

        def begin(talk: chats.Chat) -> Generator[Event]:
            from llmchat.ui.large_material import with_material

            question = self._question(text, input, files)
            return talk.ask(with_material(talk, question, self._documents, {}))

        return begin, form, _checked(settings)

    def _question(self, text: str, input: Material, files: Sequence[str | Path]) -> Message:
        given = {"": input} if isinstance(input, str) else input
        texts = [(name, one) for name, one in given.items() if one]
        texts += self._opening.texts_of([str(file) for file in files])
        if not text and not texts:
            raise UsageError("the question is empty")
        written, parts = material(texts)
        return Message("user", text, written, files=parts if any(n for n, _ in texts) else ())

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the chat is closed", "`llmchat.open` opens another")

    def _pieces(self, slot: Slot, *asked: Any) -> Generator[str]:
        growing: GrowingAnswer[Any] = GrowingAnswer(asked[1])
        with closing(self._events(slot, *asked)) as events:
            for event in events:
                if text := growing.feed(event):
                    yield text

    def _events(
        self, slot: Slot, begin: "_Begin", form: Form[Any], settings: Mapping[str, Any]
    ) -> Generator[Event]:
        self._start(slot)
        growing: GrowingAnswer[Any] = GrowingAnswer(form)
        try:
            with self._changed(form, settings):
                try:
                    with closing(begin(self._talk)) as events:
                        yield from self._passed_on(events, growing, slot)
                except (GeneratorExit, KeyboardInterrupt):
                    self._end(slot, growing)
                    raise
                self._end(slot, growing)
        finally:
            self._model.end_turn(slot)

    def _passed_on(
        self, events: Iterator[Event], growing: GrowingAnswer[Any], slot: Slot
    ) -> Generator[Event]:
        """The events. While a tool runs, another chat may use the model: the tool itself may."""
        for event in events:
            growing.feed(event)
            if isinstance(event, ToolStarted):
                self._model.end_turn(slot)
            elif isinstance(event, Result):
                self._model.take_turn(slot)
            yield event

    def _start(self, slot: Slot) -> None:
        """Begin a turn; an answer of this chat that was left is cancelled."""
        self._check_open()
        if self._running is not None and self._running.is_open:
            if self._running.is_running:
                raise UsageError(
                    "this chat is answering", "a tool that asks needs a chat of its own: chat.new()"
                )
            self._running.close()
        self._model.take_turn(slot)
        self._running = slot

    def _end(self, slot: Slot, growing: GrowingAnswer[Any]) -> None:
        slot.answer = self._answer = growing.answer(self._talk)
        if note := self._talk.take_notice():
            log.warning(note)

    @contextmanager
    def _changed(self, form: Form[Any], settings: Mapping[str, Any]) -> Iterator[None]:
        """The settings of one answer."""
        talk = self._talk
        before = talk.preset, talk.sampling
        preset, sampling = adjust(talk.preset, talk.sampling, settings)
        talk.preset, talk.sampling = preset, replace(sampling, structure=form.structure)
        try:
            yield
        finally:
            talk.preset, talk.sampling = before


class _Batch:
    """What holds the model while a batch uses it."""

    is_open = True

    def close(self) -> None:
        raise UsageError("the model is answering a batch", "ask when it has ended")


_Begin = Callable[[chats.Chat], Generator[Event]]


def whole(events: Events) -> Answer[Any]:
    """The answer of these events."""
    with events:
        for _ in events:
            pass
    return events.answer


def _checked(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings by their names. Raises UsageError for an unknown one."""
    known = [name for name in setting_names() if name != "schema"]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known) or f"the settings are {', '.join(known)}"
            raise UsageError(f"there is no setting `{name}`", hint)
    return settings
