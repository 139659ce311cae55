"""Answers the questions of a chat, in its role and one at a time."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from llmchat.acting import ToolStarted
from llmchat.api.answer import Answer, GrowingAnswer
from llmchat.api.forms import Form
from llmchat.api.shared_model import SharedModel
from llmchat.api.stream import Slot
from llmchat.attachments.documents import Documents
from llmchat.attachments.large_material import with_material
from llmchat.chat import Chat, Event
from llmchat.conversation import Message, material
from llmchat.errors import UsageError, did_you_mean
from llmchat.presets import adjust, setting_names
from llmchat.tools.toolbox import Result

if TYPE_CHECKING:
    from llmchat.history import History
    from llmchat.roles import Role

# One text, or texts by their names.
Material = str | Mapping[str, str]
# An event, and the text that it adds to the answer.
Step = tuple[Event, str]

log = logging.getLogger("llmchat")


class Maker(Protocol):
    """Makes the chats of one `open`, and holds what they share."""

    @property
    def role(self) -> "Role | None":
        """The role that words the questions."""
        ...

    def chat(self, model: SharedModel, form: Form[Any], *, settings: Mapping[str, Any]) -> Any:
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

    def keep_cache(self, talk: Chat) -> None:
        """Keep the KV cache of a session, so that it continues without a prefill."""
        ...


class Asked(Struct, frozen=True):
    """A question with its material, and the settings of its answer.

    again: answers the last question again, with this hint.
    """

    form: Form[Any]
    settings: Mapping[str, Any]
    text: str = ""
    input: Material = ""
    files: Sequence[str | Path] = ()
    again: str | None = None


class Answering:
    """Answers the questions of one chat."""

    def __init__(self, maker: Maker, model: SharedModel, talk: Chat, documents: Documents):
        self.answer: Answer[Any] | None = None
        self._maker, self._model, self._talk = maker, model, talk
        self._documents = documents
        self._running: Slot | None = None

    def stop(self) -> None:
        """Cancel the answer that is in progress, if there is one."""
        if self._running is not None:
            self._running.close()

    def pieces(self, slot: Slot, asked: Asked) -> Generator[str]:
        """The text of the answer; with a role of several turns, only that of the last turn."""
        with closing(self._steps(slot, asked)) as steps:
            for _, text in steps:
                if text and slot.is_last:
                    yield text

    def events(self, slot: Slot, asked: Asked) -> Generator[Event]:
        """All that happens until the answer ends."""
        with closing(self._steps(slot, asked)) as steps:
            for event, _ in steps:
                yield event

    def _steps(self, slot: Slot, asked: Asked) -> Generator[Step]:
        self._start(slot)
        try:
            with self._changed(asked):
                if asked.again is None:
                    questions = self._questions(asked)
                    for number, question in enumerate(questions, 1):
                        slot.is_last = number == len(questions)
                        yield from self._answered(slot, asked, self._talk.ask(question))
                else:
                    slot.is_last = True
                    again = self._talk.regenerate(asked.again)
                    yield from self._answered(slot, asked, again)
        finally:
            self._model.end_turn(slot)

    def _answered(self, slot: Slot, asked: Asked, events: Generator[Event]) -> Generator[Step]:
        growing: GrowingAnswer[Any] = GrowingAnswer(asked.form)
        try:
            with closing(events):
                yield from self._passed_on(events, growing, slot)
        except (GeneratorExit, KeyboardInterrupt):
            self._end(slot, growing)
            raise
        self._end(slot, growing)

    def _passed_on(
        self, events: Iterator[Event], growing: GrowingAnswer[Any], slot: Slot
    ) -> Generator[Step]:
        """The events. While a tool runs, another chat may use the model: the tool itself may."""
        for event in events:
            text = growing.feed(event)
            if isinstance(event, ToolStarted):
                self._model.end_turn(slot)
            elif isinstance(event, Result):
                self._model.take_turn(slot)
            yield event, text

    def _start(self, slot: Slot) -> None:
        """Begin a turn; an abandoned answer of this chat is cancelled."""
        before = self._running
        if before is not None and before.is_running:
            raise UsageError(
                "this chat is already answering", "a tool can ask in another chat: chat.new()"
            )
        if before is not None:
            before.close()
        self._model.take_turn(slot)
        self._running = slot

    def _end(self, slot: Slot, growing: GrowingAnswer[Any]) -> None:
        slot.answer = self.answer = growing.answer(self._talk)
        if note := self._talk.take_notice():
            log.warning(note)

    def _questions(self, asked: Asked) -> list[Message]:
        """The question with what documents say, and the further turns of the role."""
        turns: tuple[str, ...] = ()
        question = self._question(asked)
        if role := self._maker.role:
            begun = self._talk.conversation.question >= 0
            question, turns = role.questions(question, begun=begun)
        if not question.text and not question.input:
            raise UsageError("the question is empty")
        first = with_material(self._talk, question, self._documents, {})
        return [first, *(Message("user", turn) for turn in turns)]

    def _question(self, asked: Asked) -> Message:
        _check_types(asked)
        given = {"": asked.input} if isinstance(asked.input, str) else asked.input
        texts = [(name, one) for name, one in given.items() if one]
        texts += self._maker.texts_of([str(file) for file in asked.files])
        written, parts = material(texts)
        is_named = any(name for name, _ in texts)
        return Message("user", asked.text, written, files=parts if is_named else ())

    @contextmanager
    def _changed(self, asked: Asked) -> Iterator[None]:
        """The settings of one answer."""
        talk = self._talk
        before = talk.preset, talk.sampling
        preset, sampling = adjust(talk.preset, talk.sampling, asked.settings)
        talk.preset, talk.sampling = preset, replace(sampling, structure=asked.form.structure)
        try:
            yield
        finally:
            talk.preset, talk.sampling = before


def _check_types(asked: Asked) -> None:
    """Raise UsageError for what is no text, before anything is stored."""
    given = asked.input if isinstance(asked.input, Mapping) else {"": asked.input}
    named = {"the question": asked.text} | {f"input {name}".strip(): given[name] for name in given}
    for name, text in named.items():
        if not isinstance(text, str):
            raise UsageError(f"{name} must be a string, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name} contains a lone surrogate") from None
    files = asked.files
    is_list = isinstance(files, Sequence) and not isinstance(files, str)
    if not is_list or not all(isinstance(file, str | Path) for file in files):
        raise UsageError("files must be a list of names", 'files=["notes.md"] reads one file')


def checked_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings by their names. Raises UsageError for an unknown one."""
    known = [name for name in setting_names() if name != "schema"]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known) or f"the settings are {', '.join(known)}"
            raise UsageError(f"there is no setting `{name}`", hint)
    return settings
