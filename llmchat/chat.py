"""The path of one message, and the chat that follows it turn by turn.

user text → Conversation → Window → Prompt → Engine → Chunks → history
"""

from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat import tool_syntax
from llmchat.calls import ToolRequest
from llmchat.conversation import Conversation, Mark, Message
from llmchat.engines import Chunk, Counter, Engine, Finish, Sampling
from llmchat.engines.capabilities import FollowsGrammars, InBackground, SendsTools, unwrap
from llmchat.errors import ContextOverflow, LlmchatError, UsageError
from llmchat.live_settings import LiveSettings
from llmchat.presets import Preset
from llmchat.reply_parser import GenerationRequest, ReplyEvent, ReplyParser, Thinking
from llmchat.stored_conversation import SessionFacts, StoredConversation
from llmchat.summary import summarise
from llmchat.window import Window, fit

if TYPE_CHECKING:
    from llmchat.history import History


def reply(
    conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling
) -> Generator[Window | ReplyEvent]:
    """Yield the window that is sent, then thinking and the answer in chunks, then one Finish."""
    request = _request_for(conversation, preset, engine, sampling)
    yield request.window
    parser = ReplyParser(preset, request)
    with closing(engine.stream(request.prompt, request.sampling)) as events:
        for event in events:
            yield from parser.feed(event)


def build_request(
    conversation: Conversation,
    preset: Preset,
    engine: Counter,
    context: int,
    sampling: Sampling,
    *,
    reserve: bool = True,
    tools: ToolRequest | None = None,
) -> GenerationRequest:
    """The path up to the engine, which holds `context` tokens.

    If the conversation ends with an answer, the model continues it. reserve: keep room for
    max_tokens; otherwise any room is enough. tools: what the prompt offers; the answer is then
    bound to calls that fit their schemas, or to the sampling's own structure.
    """
    if tools is not None:
        preset, sampling = _with_tools(preset, engine, sampling, tools)
    most = sampling.max_tokens if reserve else 1
    window, prompt = fit(conversation, preset, engine, context, most)
    resumed = conversation.spoken[-1].role == "assistant"
    if resumed:
        prompt = preset.format.extend(window.messages)
    prompt = replace(prompt, tools=tools)
    # The answer may use what the window leaves, even if the model itself could hold more.
    room = window.limit - window.tokens
    max_tokens = min(sampling.max_tokens or room, room)
    return GenerationRequest(window, prompt, replace(sampling, max_tokens=max_tokens), resumed)


def _with_tools(
    preset: Preset, engine: Counter, sampling: Sampling, tools: ToolRequest
) -> tuple[Preset, Sampling]:
    """The preset and the sampling for a request with tools, as far as the engine enforces it."""
    worker = unwrap(engine)
    if isinstance(worker, SendsTools) and worker.sends_tools:
        return preset, sampling
    prepared, structure = tool_syntax.prepare(preset, tools, sampling.structure)
    if isinstance(worker, FollowsGrammars) and worker.follows_grammars:
        return prepared, replace(sampling, structure=structure)
    if tools.choice == "required" or tools.name:
        raise UsageError(
            "this engine cannot make a model call a tool",
            "leave the choice to the model, or use --engine transformers",
        )
    if structure is not None and sampling.structure is not None and prepared is not preset:
        raise UsageError(
            "this engine cannot bind an answer that may also call a tool",
            "ask for the structure without tools, or use --engine transformers",
        )
    return prepared, sampling


def _request_for(
    conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling
) -> GenerationRequest:
    """Build the request, in the background server if the model is loaded there."""
    worker = unwrap(engine)
    if isinstance(worker, InBackground):
        # After an error the request is built here, which succeeds or raises the same error.
        with suppress(LlmchatError):
            return worker.ask(conversation, sampling, GenerationRequest)
    return build_request(conversation, preset, engine, engine.context, sampling)


class Summary(Struct, frozen=True):
    """A piece of the summary that replaces messages which no longer fit."""

    text: str


Event = Window | Summary | ReplyEvent


class Chat(LiveSettings):
    """A conversation with one model, stored as it happens.

    `window`, `finish` and `answered_by` describe the last answer. `made_by` (models.provenance) is
    stored with each answer, `opens` and `settings` (history.Session) with the session.
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
        self.use_preset(preset, sampling or preset.sampling)
        self.engine = engine
        self.made_by = dict(made_by or {"model": preset.name})
        self.opens = dict(opens or {})
        self._stored = StoredConversation(history)
        self.window: Window | None = None
        self.finish: Finish | None = None
        self.answered_by: dict[str, Any] = {}
        if session:
            self._stored.load(session)
        if preset.system and not self.conversation.system:
            self.instruct(preset.system)

    @property
    def conversation(self) -> Conversation:
        return self._stored.conversation

    @property
    def history(self) -> "History":
        return self._stored.history

    @property
    def session(self) -> str | None:
        """The id of the stored session; None before the first question."""
        return self._stored.session

    @property
    def last_hint(self) -> str:
        """The hint that the last answer was generated with."""
        return self._stored.last_hint()

    def take_notice(self) -> str:
        """A notice for the user that this chat had to continue in a new session; empty if not.

        A second call returns nothing.
        """
        left = self._stored.take_forked_session()
        if not left:
            return ""
        return (
            f"another llmchat continued session {left}; this chat continues as session"
            f" {self.session}"
        )

    def switch_model(
        self,
        preset: Preset,
        engine: Engine,
        made_by: Mapping[str, Any],
        opens: Mapping[str, Any] | None = None,
    ) -> None:
        """Continue the conversation with another model and its settings."""
        if engine is not self.engine:
            self.engine.unload()
        self.use_preset(preset, preset.sampling)
        self.engine, self.made_by, self.opens = engine, dict(made_by), dict(opens or {})
        self.window = self.finish = None
        self._stored.save_facts(self._session_facts())

    def send(
        self, text: str, input: str = "", files: tuple[tuple[str, int], ...] = ()
    ) -> Generator[Event]:
        """Ask a question. It is stored now, the answer when it ends.

        Closing the iterator stores the partial answer as cancelled.
        """
        self._store(Message("user", text, input, files=files))
        return self._answer()

    def regenerate(self, hint: str = "") -> Generator[Event]:
        """Answer the last question again. The old answer stays in the history as a sibling.

        hint: added to the question for this answer, and stored with the answer.
        """
        question = self.conversation.question
        if question < 0:
            raise UsageError("there is no question to answer again")
        after = self.conversation.messages[question + 1 : question + 2]
        # A summary that was made for this question is still valid.
        keep = question + (2 if after and after[0].role == "summary" else 1)
        self._stored.rewind(keep, question)
        return self._answer(hint=hint)

    def resume(self) -> Generator[Event]:
        """Continue the last answer. The longer answer replaces it; both stay in the history."""
        messages = self.conversation.messages
        if not messages or messages[-1].role != "assistant":
            raise UsageError("there is no answer to continue", "`/regen` answers the last question")
        return self._answer(begun=messages[-1], hint=self.last_hint)

    @property
    def resumable(self) -> bool:
        """Whether `resume` is possible: an answer, room in the window, and an engine that can."""
        spoken = self.conversation.spoken
        if not spoken or spoken[-1].role != "assistant" or not self.engine.resumes:
            return False
        try:
            build_request(
                self.conversation, self.preset, self.engine, self.engine.context, self.sampling
            )
        except ContextOverflow:
            return False
        return True

    def undo(self, turns: int = 1) -> None:
        """Remove the last questions and their answers; the history keeps them as a branch."""
        if self.conversation.question < 0:
            raise UsageError("there is nothing to undo")
        self._stored.rewind(len(self.conversation.undo(turns).messages))
        # These described an answer that is gone.
        self.window = self.next_window() if self.window and self.conversation.spoken else None
        self.finish = None

    def instruct(self, system: str) -> None:
        """Set the system text for the following answers."""
        self._stored.instruct(system)

    def restart(self) -> None:
        """Start a new session with the same system text."""
        self._stored.restart()
        self.window = self.finish = None

    def open(self, session: str, settings: Mapping[str, Any] | None = None) -> None:
        """Continue a stored session with the settings that were stored with it."""
        self.reset_settings()
        self.restore_settings(settings or {})
        self.window = self.finish = None
        self._stored.load(session)

    def stop_saving(self) -> None:
        """Continue the conversation in memory only."""
        self._stored.stop_saving()

    def fork(self) -> str:
        """Continue in a new session that shares all messages so far; returns its id."""
        return self._stored.fork()

    def show_alternative(self, step: int) -> tuple[int, int]:
        """Switch to the next (1) or previous (-1) answer to the last question.

        Returns its number and how many answers there are.
        """
        return self._stored.show_alternative(step)

    def mark(self, number: int, mark: Mark) -> Message:
        """Pin or exclude a spoken message, counted from 1, or remove its mark; returns it."""
        return self._stored.mark(number, mark)

    def compact(self) -> Generator[Event]:
        """Replace all messages by a summary in what the model is sent."""
        spoken, summary = self.conversation.spoken, self.conversation.summary
        covered = summary.covers if summary else 0
        new = tuple(message for message in spoken[covered:] if message.mark != "excluded")
        if not new:
            raise UsageError("there is nothing new to summarise")
        return self._summarise(new, len(spoken))

    def set_summary(self, text: str) -> None:
        """Change the text of the last summary."""
        summary = self.conversation.summary
        if summary is None:
            raise UsageError("there is no summary")
        self._store(replace(summary, text=text))

    def current_window(self) -> Window:
        """The window of the conversation as it is."""
        if not self.conversation.spoken:
            raise UsageError("the chat is empty")
        return self._fit(self.conversation)

    def next_window(self) -> Window:
        """The window of the next question, without the tokens of the question."""
        if not self.conversation.spoken or self.conversation.spoken[-1].role == "user":
            return self.current_window()
        window = self._fit(self.conversation.say(""))
        return replace(window, messages=window.messages[:-1], ledger=window.ledger[:-1])

    def _fit(self, conversation: Conversation) -> Window:
        context, most = self.engine.context, self.sampling.max_tokens
        return fit(conversation, self.preset, self.engine, context, most)[0]

    def _answer(self, begun: Message | None = None, hint: str = "") -> Generator[Event]:
        try:
            if self.preset.context.policy == "summary":
                yield from self._make_room()
            yield from self._stream_answer(begun, hint)
        finally:
            self._stored.release()

    def _stream_answer(self, begun: Message | None, hint: str) -> Generator[Event]:
        """Stream an answer and store its text however it ends. begun: an answer to continue."""
        text, thinking, finish = begun.text if begun else "", "", Finish("cancelled")
        has_text = False
        events = reply(self.conversation.with_hint(hint), self.preset, self.engine, self.sampling)
        try:
            for event in events:
                if isinstance(event, Window):
                    self.window = event
                elif isinstance(event, Chunk):
                    text, has_text = text + event.text, True
                elif isinstance(event, Thinking):
                    thinking += event.text
                elif isinstance(event, Finish):
                    finish = event
                yield event
        finally:
            events.close()
            self.finish, self.answered_by = finish, self.made_by
            if has_text or finish.reason != "cancelled":
                details = self._answer_details(thinking, hint, resumed=begun is not None)
                # A continued answer replaces the shorter one.
                length = -1 if begun else None
                self._store(Message("assistant", text), finish, details, length)

    def _answer_details(self, thinking: str, hint: str, resumed: bool) -> dict[str, Any]:
        """What is stored with an answer about how it was made."""
        window = self.window
        fields = ("limit", "tokens", "sent", "dropped")
        details = {
            "made_by": self.made_by,
            "sampling": msgspec.to_builtins(self.sampling),
            "context": msgspec.to_builtins(self.preset.context),
            "window": {name: getattr(window, name) for name in fields} if window else {},
        }
        optional = {"thinking": thinking, "resumed": resumed, "hint": hint}
        return details | {name: value for name, value in optional.items() if value}

    def _make_room(self) -> Generator[Event]:
        """Summarise what does not fit, and again if the summary itself displaces messages."""
        for _ in range(3):
            window = self.current_window()
            if not window.left_out:
                return
            yield from self._summarise(window.left_out, window.covers)

    def _summarise(self, messages: tuple[Message, ...], covers: int) -> Generator[Event]:
        known = self.conversation.summary.text if self.conversation.summary else ""
        context = self.engine.context
        limit = min(self.preset.context.tokens or context, context)
        pieces = summarise(messages, known, self.preset, self.engine, limit)
        with closing(pieces):
            while True:
                try:
                    yield Summary(next(pieces))
                except StopIteration as end:
                    self._store(Message("summary", end.value, covers=covers))
                    return

    def _store(
        self,
        message: Message,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
        length: int | None = None,
    ) -> None:
        self._stored.append(message, self._session_facts(), finish, details, length)

    def _settings_changed(self) -> None:
        self._stored.save_facts(self._session_facts())

    def _session_facts(self) -> SessionFacts:
        return SessionFacts(self.preset.name, self.opens, self.settings)
