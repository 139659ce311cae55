"""The way of one message, and the chat that goes it turn by turn.

user text → Conversation → Window → Prompt → Engine → Chunks → history
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Mark, Message
from llmchat.engines import Chunk, Counter, Engine, Finish, Prefill, Sampling
from llmchat.engines.capabilities import InBackground, unwrap
from llmchat.errors import ContextOverflow, LlmchatError, UsageError
from llmchat.live_settings import Adjustable
from llmchat.presets import Preset
from llmchat.reply_parser import Asked, Reading, Thought
from llmchat.summary import summarise
from llmchat.window import Window, fit

if TYPE_CHECKING:
    from llmchat.history import BranchWriter, History


class Summary(Struct, frozen=True):
    """A piece of the summary that takes the place of messages which no longer fit."""

    text: str


Event = Window | Prefill | Thought | Summary | Chunk | Finish


def ask(
    conversation: Conversation,
    preset: Preset,
    engine: Counter,
    context: int,
    sampling: Sampling,
    *,
    reserve: bool = True,
) -> Asked:
    """The first half of the way, up to the engine, which holds `context` tokens.

    Where the conversation ends with an answer, the model is to go on with it. reserve: keep room for max_tokens; otherwise any room will do.
    """
    window, prompt = fit(
        conversation, preset, engine, context, sampling.max_tokens if reserve else 1
    )
    resumed = conversation.spoken[-1].role == "assistant"
    if resumed:
        prompt = preset.format.extend(window.messages)
    # The answer may use what the window leaves, also where the model itself could hold more.
    room = window.limit - window.tokens
    return Asked(
        window,
        prompt,
        replace(sampling, max_tokens=min(sampling.max_tokens or room, room)),
        resumed,
    )


def _asked_elsewhere(
    conversation: Conversation, engine: Engine, sampling: Sampling
) -> Asked | None:
    """The same from where the model is, in one step, when that is another process; None where it is here, or `ask` is to tell what is wrong."""
    engine = unwrap(engine)
    if not isinstance(engine, InBackground):
        return None
    try:
        return engine.ask(conversation, sampling, Asked)
    except LlmchatError:
        return None


def reply(
    conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling
) -> Generator[Window | Prefill | Thought | Chunk | Finish]:
    """The window that is sent, then thoughts and the answer in chunks, then one Finish."""
    asked = _asked_elsewhere(conversation, engine, sampling) or ask(
        conversation, preset, engine, engine.context, sampling
    )
    yield asked.window
    reading = Reading(preset, asked)
    with closing(engine.stream(asked.prompt, asked.sampling)) as events:
        for event in events:
            yield from reading.feed(event)


class Chat(Adjustable):
    """A conversation with one model, stored as it happens.

    `window`, `finish` and `answered_by` tell of the last answer; `made_by` (models.provenance) is stored with each. `opens` and `settings` (see
    history.Session) are stored with the session. A new model may take over in the middle: see `hand_over`.
    """

    def __init__(
        self,
        preset: Preset,
        engine: Engine,
        history: "History",
        sampling: Sampling | None = None,
        session: str | None = None,
        made_by: Mapping[str, Any] | None = None,
        opens: Mapping[str, Any] | None = None,
    ):
        self.begin_with(preset, sampling or preset.sampling)
        self.engine = engine
        self.history = history
        self.made_by = dict(made_by or {"model": preset.name})
        self.opens = dict(opens or {})
        self._remembered: tuple[Any, ...] = ()
        self._line: BranchWriter | None = None
        self.conversation = Conversation()
        if session:
            self._take_up(session)
        self.window: Window | None = None
        self.finish: Finish | None = None
        self.answered_by: dict[str, Any] = {}
        if preset.system and not self.conversation.system:
            self.instruct(preset.system)

    @property
    def session(self) -> str | None:
        """The id of the stored session; None before the first question."""
        return self._line.session if self._line else None

    def note(self) -> str:
        """What the person must be told of the last steps, once: that this chat had to go on in a session of its own. Empty: nothing."""
        left = self._line.take_left_session() if self._line else None
        return (
            f"another llmchat went on with session {left}; this chat continues as session {self.session}"
            if left
            else ""
        )

    def hand_over(
        self,
        preset: Preset,
        engine: Engine,
        made_by: Mapping[str, Any],
        opens: Mapping[str, Any] | None = None,
    ) -> None:
        """Go on with another model: its settings hold from now on, the conversation stays."""
        if engine is not self.engine:
            self.engine.unload()
        self.begin_with(preset, preset.sampling)
        self.engine, self.made_by, self.opens = engine, dict(made_by), dict(opens or {})
        self.window = self.finish = None
        self._remember()

    def _settings_changed(self) -> None:
        self._remember()

    def _remember(self) -> None:
        """Keep with the session what opens its model and what was set, where that changed."""
        now = (self.session, self.preset.name, self.opens, self.settings)
        # A session that another process has gone on with is not told; the fork that follows is.
        if self._line and now != self._remembered and self._line.is_current():
            self.history.remember(self._line.session, self.preset.name, self.opens, self.settings)
            self._remembered = now

    def send(
        self, text: str, input: str = "", files: tuple[tuple[str, int], ...] = ()
    ) -> Generator[Event]:
        """Ask. The message is stored now, the answer when it ends; closing the iterator keeps what was said so far as cancelled."""
        self._store(Message("user", text, input, files=files))
        return self._answer()

    def regenerate(self, hint: str = "") -> Generator[Event]:
        """Answer the last question again. The old answer stays in the history as a sibling of the new one.

        hint: given to the model behind the question for this answer, and stored with it.
        """
        question = self.conversation.question
        if question < 0:
            raise UsageError("there is no question to answer again")
        after = self.conversation.messages[question + 1 : question + 2]
        # A summary that was made for this question still holds.
        self._rewind(question + (2 if after and after[0].role == "summary" else 1), question)
        return self._answer(hint=hint)

    def resume(self) -> Generator[Event]:
        """Continue the last answer where it stopped. The longer answer takes the place of the old one, which stays as its sibling."""
        messages = self.conversation.messages
        if not messages or messages[-1].role != "assistant":
            raise UsageError("there is no answer to continue", "`/regen` answers the last question")
        return self._answer(begun=messages[-1], hint=self.hint)

    @property
    def hint(self) -> str:
        """What the last answer was asked with, beside its question."""
        records = self.history.messages(self.session) if self.session else []
        return str(records[-1].details.get("hint", "")) if records else ""

    @property
    def resumable(self) -> bool:
        """Whether `resume` would be taken: there is an answer, the window has room for more of it, and the engine can go on with it."""
        spoken = self.conversation.spoken
        if not spoken or spoken[-1].role != "assistant" or not self.engine.resumes:
            return False
        try:
            ask(self.conversation, self.preset, self.engine, self.engine.context, self.sampling)
        except ContextOverflow:
            return False
        return True

    def undo(self, turns: int = 1) -> None:
        """Go back before the last questions. Nothing is lost: the history keeps the branch."""
        if self.conversation.question < 0:
            raise UsageError("there is nothing to undo")
        self._rewind(len(self.conversation.undo(turns).messages))
        # What they told of an answer that is taken back would be untrue.
        self.window = self.look_ahead() if self.window and self.conversation.spoken else None
        self.finish = None

    def instruct(self, system: str) -> None:
        """Set the system text for the answers to come."""
        self.conversation = self.conversation.instruct(system)
        if self._line:
            self._line.append(self.conversation.messages[-1])

    def restart(self) -> None:
        """Begin a new session, with the same system text."""
        self._line = self.window = self.finish = None
        system = self.conversation.system
        self.conversation = Conversation((Message("system", system),) if system else ())

    def open(self, session: str, settings: Mapping[str, Any] | None = None) -> None:
        """Go on with a stored session, and with the settings that it kept."""
        self.reset_settings()
        self.take_settings(settings or {})
        self.window = self.finish = None
        self._take_up(session)

    def stop_saving(self) -> None:
        """Go on with what was said so far in memory alone."""
        from llmchat.history import History

        self.history, self._line = History(None), None

    def fork(self) -> str:
        """Go on in a new session that shares everything said so far; returns its id."""
        return self._saved().fork()

    def alternative(self, step: int) -> tuple[int, int]:
        """Show the next (1) or the earlier (-1) answer to the last question; returns its number and how many there are."""
        line = self._saved()
        position = line.alternative(step)
        self.conversation = line.conversation
        return position

    def mark(self, number: int, mark: Mark) -> Message:
        """Pin or exclude a spoken message, counted from 1, or take its mark off; returns it."""
        spoken = [
            index
            for index, message in enumerate(self.conversation.messages)
            if message.role not in ("system", "summary")
        ]
        if not 1 <= number <= len(spoken):
            raise UsageError(f"there is no message {number}", "`/context` numbers them")
        index, messages = spoken[number - 1], list(self.conversation.messages)
        line = self._saved()
        for one in self.conversation.turn(index):
            # A turn has one mark, the last one given.
            wanted: Mark = mark if one == index else ""
            if messages[one].mark != wanted:
                messages[one] = replace(messages[one], mark=wanted)
                line.mark(one, wanted)
        self.conversation = Conversation(tuple(messages))
        return messages[index]

    def compact(self) -> Generator[Event]:
        """Let a summary stand for all that was said."""
        spoken = self.conversation.spoken
        told = tuple(message for message in spoken[self._covered() :] if message.mark != "excluded")
        if not told:
            raise UsageError("there is nothing new to summarise")
        return self._summarise(told, len(spoken))

    def set_summary(self, text: str) -> None:
        """Put another text in the place of the last summary."""
        summary = self.conversation.summary
        if summary is None:
            raise UsageError("there is no summary")
        self._store(replace(summary, text=text))

    def look(self) -> Window:
        """The window of the conversation as it stands."""
        if not self.conversation.spoken:
            raise UsageError("the chat is empty")
        return self._fit(self.conversation)

    def look_ahead(self) -> Window:
        """What a next question would find sent, before its own text is counted."""
        if not self.conversation.spoken or self.conversation.spoken[-1].role == "user":
            return self.look()
        window = self._fit(self.conversation.say(""))
        return replace(window, messages=window.messages[:-1], ledger=window.ledger[:-1])

    def _fit(self, conversation: Conversation) -> Window:
        return fit(
            conversation, self.preset, self.engine, self.engine.context, self.sampling.max_tokens
        )[0]

    def _answer(self, begun: Message | None = None, hint: str = "") -> Generator[Event]:
        try:
            if self.preset.context.policy == "summary":
                yield from self._make_room()
            yield from self._tell(begun, hint)
        finally:
            if self._line:
                self._line.release()

    def _tell(self, begun: Message | None, hint: str) -> Generator[Event]:
        """Stream an answer, and store what was said of it however it ends."""
        text, thinking, finish = begun.text if begun else "", "", Finish("cancelled")
        events = reply(self.conversation.hinted(hint), self.preset, self.engine, self.sampling)
        said = False
        try:
            for event in events:
                if isinstance(event, Window):
                    self.window = event
                elif isinstance(event, Chunk):
                    text, said = text + event.text, True
                elif isinstance(event, Thought):
                    thinking += event.text
                elif isinstance(event, Finish):
                    finish = event
                yield event
        finally:
            events.close()
            self.finish, self.answered_by = finish, self.made_by
            if said or finish.reason != "cancelled":
                details = self._details(thinking, resumed=begun is not None) | (
                    {"hint": hint} if hint else {}
                )
                # A longer answer takes the place of the one it goes on with.
                self._store(Message("assistant", text), finish, details, -1 if begun else None)

    def _make_room(self) -> Generator[Event]:
        """Summarise what the window has no room for, and again if the summary itself pushes something out."""
        for _ in range(3):
            window = self.look()
            if not window.left:
                return
            yield from self._summarise(window.left, window.covers)

    def _summarise(self, messages: tuple[Message, ...], covers: int) -> Generator[Event]:
        known = self.conversation.summary.text if self.conversation.summary else ""
        limit = self.preset.context.tokens or self.engine.context
        pieces = summarise(
            messages, known, self.preset, self.engine, min(limit, self.engine.context)
        )
        with closing(pieces):
            while True:
                try:
                    yield Summary(next(pieces))
                except StopIteration as end:
                    self._store(Message("summary", end.value, covers=covers))
                    return

    def _covered(self) -> int:
        return self.conversation.summary.covers if self.conversation.summary else 0

    def _details(self, thinking: str, resumed: bool) -> dict[str, Any]:
        """What made an answer, to be stored with it."""
        window = self.window
        details = {
            "made_by": self.made_by,
            "sampling": msgspec.to_builtins(self.sampling),
            "context": msgspec.to_builtins(self.preset.context),
            "window": {
                "limit": window.limit,
                "tokens": window.tokens,
                "sent": window.sent,
                "dropped": window.dropped,
            }
            if window
            else {},
        }
        return (
            details
            | ({"thinking": thinking} if thinking else {})
            | ({"resumed": True} if resumed else {})
        )

    def _store(
        self,
        message: Message,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
        length: int | None = None,
    ) -> None:
        """Add a message to the conversation, behind its first `length` messages, and to the history. The session begins with the first
        question, not before."""
        kept = self.conversation.messages[:length]
        self.conversation = Conversation((*kept, message))
        if self._line is None:
            from llmchat.history import BranchWriter

            self._line = BranchWriter(
                self.history, self.history.begin(self.preset.name, self.opens, self.settings)
            )
        # What was said before the session began, or could not be stored on a full disk.
        for earlier in kept[len(self._line.ids) :]:
            self._line.append(earlier)
        self._line.append(message, finish, details, length=len(kept))
        if message.role == "user":
            self._remember()

    def _rewind(self, length: int, question: int | None = None) -> None:
        """Go back to the first `length` messages. question: the index of one that is to be answered again."""
        self.conversation = Conversation(self.conversation.messages[:length])
        if self._line:
            self._line.rewind(length, question)

    def _take_up(self, session: str) -> None:
        from llmchat.history import BranchWriter

        self._line = BranchWriter(self.history, session)
        self.conversation = self._line.conversation

    def _saved(self) -> "BranchWriter":
        if self._line is None:
            raise UsageError("the chat is empty")
        return self._line
