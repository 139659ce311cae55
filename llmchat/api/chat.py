"""A chat as a Python program has it: `say`, `ask` and `stream`."""

from asyncio import AbstractEventLoop
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from msgspec.structs import replace

from llmchat import chat as chats
from llmchat.answer_report import SentWindow
from llmchat.api.answer import Answer
from llmchat.api.answering import Answering, Asked, Maker, Material, checked_settings
from llmchat.api.forms import Form, form_of
from llmchat.api.shared_model import SharedModel
from llmchat.api.stream import Events, Pieces
from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.models.open_model import OpenModel
from llmchat.models.structures import check_for
from llmchat.output.formatting import counted

if TYPE_CHECKING:
    from llmchat.attachments.documents import Documents
    from llmchat.roles import Role

T = TypeVar("T")
S = TypeVar("S")


class Chat(Generic[T]):
    """A conversation with a model. `llmchat.open` makes one.

    It is kept in memory only, unless it was opened with `save=True` or a session, or until `save`.
    `close`, or a `with` block, frees the model. T is the type that was given as `schema=`.
    """

    def __init__(
        self,
        opening: Maker,
        model: SharedModel,
        talk: chats.Chat,
        form: Form[T],
        documents: "Documents",
        closing: ExitStack,
    ):
        """closing: what ends with the chat."""
        self._opening, self._model, self._talk, self._form = opening, model, talk, form
        self._answering = Answering(opening, model, talk, documents)
        self._closing, self._closed = closing, False
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
        """Ask, and yield the text of the answer while it is generated.

        input, files: material for the question. schema: the form of this answer. settings: for this
        answer alone, such as `temperature=0` or `max_tokens=50`. Nothing is asked before the first
        piece is taken; an iteration that is left early cancels the answer.
        """
        asked = self._asked(schema, settings, text, input, files)
        return Pieces(lambda slot: self._answering.pieces(slot, asked))

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
        """Ask, and yield the events of the answer. The arguments are those of `say`."""
        asked = self._asked(schema, settings, text, input, files)
        return Events(lambda slot: self._answering.events(slot, asked))

    def again(self, hint: str = "", **settings: Any) -> Answer[T]:
        """Answer the last question again. hint: what to do differently this time."""
        return whole(self.answering_again(hint, **settings))

    def answering_again(self, hint: str = "", **settings: Any) -> Events:
        """The events of `again`."""
        asked = self._asked(None, settings, again=hint)
        return Events(lambda slot: self._answering.events(slot, asked))

    # The conversation

    @property
    def answer(self) -> Answer[Any] | None:
        """The last answer; None before the first one."""
        return self._answering.answer

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
        """The messages that the next question will be sent with, and those left out."""
        return SentWindow.of(self._talk.next_window())

    def instruct(self, system: str) -> None:
        """Set the system text for the following answers."""
        self._talk.instruct(system)

    def set(self, **settings: Any) -> None:
        """Change settings for the following answers, such as `temperature=0`."""
        self._talk.set(checked_settings(settings))

    def undo(self, turns: int = 1) -> None:
        """Remove the last questions and their answers; a saved session keeps them as a branch."""
        self._talk.undo(turns)

    def new(self) -> "Chat[T]":
        """An empty chat with the same model, tools and settings, in the same memory."""
        self._check_open()
        made: Chat[T] = self._opening.chat(self._model, self._form, settings=self._talk.settings)
        return made

    # The session

    @property
    def session(self) -> str | None:
        """Id of the saved session; None if the chat is not saved, or empty."""
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
    def lent(self) -> "Iterator[tuple[OpenModel, Form[T], Role | None]]":
        """The model with this chat's settings, its form and its role; meanwhile no chat answers."""
        self._check_open()
        talk, slot = self._talk, _Batch()
        preset = replace(talk.preset, sampling=talk.sampling)
        self._model.take_turn(slot)
        try:
            opened = OpenModel(preset, talk.engine, talk.made_by, talk.opens)
            yield opened, self._form, self._opening.role
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
        self._answering.stop()
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

    def _asked(
        self,
        schema: Any,
        settings: Mapping[str, Any],
        text: str = "",
        input: Material = "",
        files: Sequence[str | Path] = (),
        again: str | None = None,
    ) -> Asked:
        """What is asked, checked. Raises UsageError."""
        self._check_open()
        form = self._form if schema is None else form_of(schema)
        check_for(form.structure, self._talk.preset.engine, self._talk.engine)
        return Asked(form, checked_settings(settings), text, input, files, again)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the chat is closed", "`llmchat.open` opens another")


class _Batch:
    """What holds the model while a batch uses it."""

    is_open = True

    def close(self) -> None:
        raise UsageError("the model is answering a batch", "ask when it has ended")


def whole(events: Events) -> Answer[Any]:
    """The answer of these events."""
    with events:
        for _ in events:
            pass
    return events.answer
