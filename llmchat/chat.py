"""The way of one message, and the chat that goes it turn by turn.

user text → Conversation → Window → Prompt → Engine → Chunks → history
"""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Engine, Finish, Sampling
from llmchat.errors import UsageError
from llmchat.presets import Preset
from llmchat.window import Window, fit

if TYPE_CHECKING:
    from llmchat.history import History

Event = Window | Chunk | Finish


def reply(conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling) -> Generator[Event]:
    """The window that is sent, then the answer in chunks without white space at its ends, then one Finish."""
    window = fit(conversation, preset, engine, engine.context, sampling.max_tokens)
    yield window
    prompt = preset.format.render(window.messages)
    # The answer may use what the window leaves, also where the model itself could hold more.
    room = window.limit - window.tokens
    yield from trimmed(engine.stream(prompt, replace(sampling, max_tokens=min(sampling.max_tokens or room, room))))


def trimmed(events: Generator[Chunk | Finish]) -> Generator[Chunk | Finish]:
    """Without white space before the first and after the last word: a cue such as `ASSISTANT:` makes models begin with a space."""
    held, begun = "", False
    with closing(events):
        for event in events:
            if isinstance(event, Finish):
                yield event
                return
            text = held + event.text if begun else event.text.lstrip()
            shown = text.rstrip()
            held = text[len(shown) :]
            if shown:
                begun = True
                yield Chunk(shown)


class Chat:
    """A conversation with one model, stored as it happens.

    `window` and `finish` tell of the last answer. A new model may take over in the middle: set `preset`, `engine` and `sampling`.
    """

    def __init__(self, preset: Preset, engine: Engine, history: "History", sampling: Sampling | None = None, session: str | None = None):
        self.preset = preset
        self.engine = engine
        self.history = history
        self.sampling = sampling or preset.sampling
        self.session = session
        self.conversation = history.conversation(session) if session else Conversation()
        self.window: Window | None = None
        self.finish: Finish | None = None
        if preset.system and not self.conversation.system:
            self.instruct(preset.system)

    def send(self, text: str, input: str = "") -> Generator[Event]:
        """Ask. The message is stored now, the answer when it ends; closing the iterator keeps what was said so far as cancelled."""
        self._store(Message("user", text, input))
        return self._answer()

    def regenerate(self) -> Generator[Event]:
        """Answer the last question again. The old answer stays in the history as a sibling of the new one."""
        if not any(message.role == "user" for message in self.conversation.messages):
            raise UsageError("there is no question to answer again")
        while self.conversation.messages[-1].role != "user":
            self.conversation = replace(self.conversation, messages=self.conversation.messages[:-1])
        self._rewind()
        return self._answer()

    def undo(self, turns: int = 1) -> None:
        """Go back before the last questions. Nothing is lost: the history keeps the branch."""
        if not any(message.role == "user" for message in self.conversation.messages):
            raise UsageError("there is nothing to undo")
        self.conversation = self.conversation.undo(turns)
        self._rewind()

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

    def _answer(self) -> Generator[Event]:
        text, finish = "", Finish("cancelled")
        events = reply(self.conversation, self.preset, self.engine, self.sampling)
        try:
            for event in events:
                if isinstance(event, Window):
                    self.window = event
                elif isinstance(event, Chunk):
                    text += event.text
                else:
                    finish = event
                yield event
        finally:
            events.close()
            self.finish = finish
            if text or finish.reason != "cancelled":
                self._store(Message("assistant", text), finish)

    def _store(self, message: Message, finish: Finish | None = None) -> None:
        """Add a message to the conversation and to the history. The session begins with the first question, not before."""
        self.conversation = replace(self.conversation, messages=(*self.conversation.messages, message))
        if self.session is None:
            self.session = self.history.begin(self.preset.name)
            for earlier in self.conversation.messages[:-1]:
                self.history.append(self.session, earlier)
        self.history.append(self.session, message, finish)

    def _rewind(self) -> None:
        """Move the session's tip back to where the conversation ends now."""
        if self.session:
            self.history.rewind(self.session, len(self.conversation.messages))
