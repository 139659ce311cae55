"""The way of one message, and the chat that goes it turn by turn.

user text → Conversation → Window → Prompt → Engine → Chunks → history
"""

from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Mark, Message
from llmchat.engines import Chunk, Counter, Engine, Finish, Sampling
from llmchat.engines.text import ThoughtFilter, Unescape
from llmchat.errors import LlmchatError, UsageError
from llmchat.presets import Preset, adjust, setting_names, settings_of
from llmchat.prompt import Prompt
from llmchat.summary import summarise
from llmchat.window import Window, fit

if TYPE_CHECKING:
    from llmchat.history import History


class Thought(Struct, frozen=True):
    """A piece of what a model thinks aloud before it answers. It is shown, and never sent again."""

    text: str


class Summary(Struct, frozen=True):
    """A piece of the summary that takes the place of messages which no longer fit."""

    text: str


Event = Window | Thought | Summary | Chunk | Finish


class Asked(Struct, frozen=True):
    """What an engine is to be asked. resumed: it goes on with an answer that is begun already."""

    window: Window
    prompt: Prompt
    sampling: Sampling
    resumed: bool


def ask(conversation: Conversation, preset: Preset, engine: Counter, context: int, sampling: Sampling, *, reserve: bool = True) -> Asked:
    """The first half of the way, up to the engine, which holds `context` tokens.

    Where the conversation ends with an answer, the model is to go on with it. reserve: keep room for max_tokens; otherwise any room will do.
    """
    window, prompt = fit(conversation, preset, engine, context, sampling.max_tokens if reserve else 1)
    resumed = conversation.spoken[-1].role == "assistant"
    if resumed:
        prompt = preset.format.extend(window.messages)
    # The answer may use what the window leaves, also where the model itself could hold more.
    room = window.limit - window.tokens
    return Asked(window, prompt, replace(sampling, max_tokens=min(sampling.max_tokens or room, room)), resumed)


class Reading:
    """The second half of the way: what an engine says, as thoughts and an answer without white space at its ends.

    Feed it the engine's events as they come. A cue such as `ASSISTANT:` makes models begin with a space; some templates open the thinking
    themselves, at the end of the prompt.
    """

    def __init__(self, preset: Preset, asked: Asked):
        marks = preset.format.thinking
        self._parts = ThoughtFilter(marks, inside=asked.prompt.text.rstrip().endswith(marks[0]))
        self._plain = Unescape(asked.prompt.unescapes)
        self._begun = asked.resumed
        self._held = ""

    def feed(self, event: Chunk | Finish) -> list[Thought | Chunk | Finish]:
        if isinstance(event, Chunk):
            return self._shown(self._parts.feed(self._plain.feed(event.text)))
        return [*self._shown([*self._parts.feed(self._plain.flush()), *self._parts.flush()]), event]

    def _shown(self, pieces: list[tuple[bool, str]]) -> list[Thought | Chunk | Finish]:
        shown = (Thought(text) if thought else self._trimmed(text) for thought, text in pieces)
        return [event for event in shown if event.text]

    def _trimmed(self, text: str) -> Chunk:
        """White space is held back until a word follows it; before the first word it is dropped."""
        text = self._held + text if self._begun else text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._begun = self._begun or bool(shown)
        return Chunk(shown)


def _asked_elsewhere(conversation: Conversation, engine: Engine, sampling: Sampling) -> Asked | None:
    """The same from where the model is, in one step, when that is another process; None where it is here, or `ask` is to tell what is wrong."""
    far = getattr(engine, "ask", None)
    try:
        return far(conversation, sampling, Asked) if far else None
    except LlmchatError:
        return None


def reply(conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling) -> Generator[Window | Thought | Chunk | Finish]:
    """The window that is sent, then thoughts and the answer in chunks, then one Finish."""
    asked = _asked_elsewhere(conversation, engine, sampling) or ask(conversation, preset, engine, engine.context, sampling)
    yield asked.window
    reading = Reading(preset, asked)
    with closing(engine.stream(asked.prompt, asked.sampling)) as events:
        for event in events:
            yield from reading.feed(event)


class Chat:
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
        self.preset = preset
        self.engine = engine
        self.history = history
        self.sampling = sampling or preset.sampling
        self.session = session
        self.made_by = dict(made_by or {"model": preset.name})
        self.opens = dict(opens or {})
        self.settings: dict[str, Any] = {}
        self.defaults = settings_of(self.sampling, preset.context)
        self._remembered: tuple[Any, ...] = ()
        self.conversation = history.conversation(session) if session else Conversation()
        self.window: Window | None = None
        self.finish: Finish | None = None
        self.answered_by: dict[str, Any] = {}
        if preset.system and not self.conversation.system:
            self.instruct(preset.system)

    def hand_over(
        self,
        preset: Preset,
        engine: Engine,
        made_by: Mapping[str, Any],
        opens: Mapping[str, Any] | None = None,
    ) -> None:
        """Go on with another model: its settings hold from now on, the conversation stays."""
        if engine is not self.engine:
            self.engine.close()
        self.preset, self.engine, self.sampling = preset, engine, preset.sampling
        self.made_by, self.opens, self.settings = dict(made_by), dict(opens or {}), {}
        self.defaults = settings_of(preset.sampling, preset.context)
        self.window = self.finish = None
        self._remember()

    def set(self, values: Mapping[str, Any]) -> None:
        """Change settings (see presets.setting_names) for the answers to come, and keep them with the session."""
        self._adjust(values)
        self._remember()

    def unset(self, name: str) -> None:
        """Give a setting its default back; the session no longer keeps it."""
        self._adjust({name: self.defaults[name]})
        del self.settings[name]
        self._remember()

    def take_settings(self, values: Mapping[str, Any]) -> None:
        """Take up what a session kept; a value that is no longer possible is left out."""
        for name, value in values.items():
            with suppress(UsageError):
                if name in setting_names():
                    self._adjust({name: value})

    def _adjust(self, values: Mapping[str, Any]) -> None:
        self.preset, self.sampling = adjust(self.preset, self.sampling, values)
        known = settings_of(self.sampling, self.preset.context)
        self.settings = self.settings | {name: known[name] for name in values}

    def _remember(self) -> None:
        """Keep with the session what opens its model and what was set, where that changed."""
        now = (self.session, self.preset.name, self.opens, self.settings)
        if self.session and now != self._remembered:
            self.history.remember(self.session, self.preset.name, self.opens, self.settings)
            self._remembered = now

    def send(self, text: str, input: str = "") -> Generator[Event]:
        """Ask. The message is stored now, the answer when it ends; closing the iterator keeps what was said so far as cancelled."""
        self._store(Message("user", text, input))
        return self._answer()

    def regenerate(self) -> Generator[Event]:
        """Answer the last question again. The old answer stays in the history as a sibling of the new one."""
        question = self.conversation.question
        if question < 0:
            raise UsageError("there is no question to answer again")
        after = self.conversation.messages[question + 1 : question + 2]
        # A summary that was made for this question still holds.
        self._rewind(question + (2 if after and after[0].role == "summary" else 1))
        return self._answer()

    def resume(self) -> Generator[Event]:
        """Let the model go on with its last answer. The longer answer takes the place of the old one, which stays as its sibling."""
        messages = self.conversation.messages
        if not messages or messages[-1].role != "assistant":
            raise UsageError("the last message is no answer", "`/regen` answers the last question")
        return self._answer(begun=messages[-1])

    def undo(self, turns: int = 1) -> None:
        """Go back before the last questions. Nothing is lost: the history keeps the branch."""
        if self.conversation.question < 0:
            raise UsageError("there is nothing to undo")
        self._rewind(len(self.conversation.undo(turns).messages))

    def instruct(self, system: str) -> None:
        """Set the system text for the answers to come."""
        self.conversation = self.conversation.instruct(system)
        if self.session:
            self.history.append(self.session, self.conversation.messages[-1])

    def restart(self) -> None:
        """Begin a new session, with the same system text."""
        self.session, self.window, self.finish = None, None, None
        system = self.conversation.system
        self.conversation = Conversation((Message("system", system),) if system else ())

    def open(self, session: str, settings: Mapping[str, Any] | None = None) -> None:
        """Go on with a stored session, and with the settings that it kept."""
        self.preset, self.sampling = adjust(self.preset, self.sampling, self.defaults)
        self.settings = {}
        self.take_settings(settings or {})
        self.session, self.window, self.finish = session, None, None
        self.conversation = self.history.conversation(session)

    def fork(self) -> str:
        """Go on in a new session that shares everything said so far; returns its id."""
        self.session = self.history.fork(self._saved_session())
        return self.session

    def alternative(self, step: int) -> tuple[int, int]:
        """Show the next (1) or the earlier (-1) answer to the last question; returns its number and how many there are."""
        position = self.history.alternative(self._saved_session(), step)
        self.conversation = self.history.conversation(self.session or "")
        return position

    def mark(self, number: int, mark: Mark) -> Message:
        """Pin or exclude a spoken message, counted from 1, or take its mark off; returns it."""
        spoken = [index for index, message in enumerate(self.conversation.messages) if message.role not in ("system", "summary")]
        if not 1 <= number <= len(spoken):
            raise UsageError(f"there is no message {number}", "`/context` numbers them")
        index, messages = spoken[number - 1], list(self.conversation.messages)
        messages[index] = replace(messages[index], mark=mark)
        self.conversation = Conversation(tuple(messages))
        self.history.mark(self._saved_session(), index, mark)
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
            raise UsageError("nothing was said yet")
        return self._fit(self.conversation)

    def look_ahead(self) -> Window:
        """What a next question would find sent, before its own text is counted."""
        if not self.conversation.spoken or self.conversation.spoken[-1].role == "user":
            return self.look()
        window = self._fit(self.conversation.say(""))
        return replace(window, messages=window.messages[:-1], ledger=window.ledger[:-1])

    def _fit(self, conversation: Conversation) -> Window:
        return fit(conversation, self.preset, self.engine, self.engine.context, self.sampling.max_tokens)[0]

    def _answer(self, begun: Message | None = None) -> Generator[Event]:
        text, thinking, finish = begun.text if begun else "", "", Finish("cancelled")
        if self.preset.context.policy == "summary":
            yield from self._make_room()
        events = reply(self.conversation, self.preset, self.engine, self.sampling)
        said = False
        try:
            for event in events:
                if isinstance(event, Window):
                    self.window = event
                elif isinstance(event, Chunk):
                    text, said = text + event.text, True
                elif isinstance(event, Thought):
                    thinking += event.text
                else:
                    finish = event
                yield event
        finally:
            events.close()
            self.finish, self.answered_by = finish, self.made_by
            if said or finish.reason != "cancelled":
                if begun:
                    self._rewind(len(self.conversation.messages) - 1)
                self._store(Message("assistant", text), finish, self._details(thinking, resumed=begun is not None))

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
        pieces = summarise(messages, known, self.preset, self.engine, min(limit, self.engine.context))
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
            "window": {"limit": window.limit, "tokens": window.tokens, "sent": window.sent, "dropped": window.dropped} if window else {},
        }
        return details | ({"thinking": thinking} if thinking else {}) | ({"resumed": True} if resumed else {})

    def _store(self, message: Message, finish: Finish | None = None, details: Mapping[str, Any] | None = None) -> None:
        """Add a message to the conversation and to the history. The session begins with the first question, not before."""
        self.conversation = replace(self.conversation, messages=(*self.conversation.messages, message))
        if self.session is None:
            self.session = self.history.begin(self.preset.name, self.opens, self.settings)
            for earlier in self.conversation.messages[:-1]:
                self.history.append(self.session, earlier)
        elif message.role == "user":
            self._remember()
        self.history.append(self.session, message, finish, details)

    def _rewind(self, length: int) -> None:
        """Go back to the first `length` messages, and the session's tip with them."""
        self.conversation = Conversation(self.conversation.messages[:length])
        if self.session:
            self.history.rewind(self.session, length)

    def _saved_session(self) -> str:
        if self.session is None:
            raise UsageError("nothing was said yet")
        return self.session
