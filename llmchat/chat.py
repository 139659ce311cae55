"""A chat: the path of a message (`reply`) turn by turn, stored as it happens.

Tools run between two answers of a turn. What the model is given belongs to `reply` and `window`.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from llmchat import tool_turn
from llmchat.acting import Generated, ToolStarted, active_actions, with_actions
from llmchat.actions import Action, taught
from llmchat.answer_record import AnswerRecord
from llmchat.calls import Call, Choice, ToolRequest
from llmchat.conversation import Conversation, FoundPassage, Mark, Message
from llmchat.dropped_turns import room_for, with_dropped
from llmchat.engines import Engine, Finish, Sampling
from llmchat.errors import UsageError
from llmchat.live_settings import LiveSettings
from llmchat.memory.of_chat import ChatMemory
from llmchat.presets import Preset
from llmchat.reply import can_resume, reply, window_of
from llmchat.reply_parser import ReplyEvent
from llmchat.stored_conversation import SessionFacts, StoredConversation
from llmchat.summary import Summary, summarise
from llmchat.tools.sources import Sources
from llmchat.tools.toolbox import Result, Toolbox
from llmchat.window import Window

if TYPE_CHECKING:
    from llmchat.history import History


Event = Window | Summary | ToolStarted | Result | ReplyEvent


class Chat(LiveSettings):
    """A conversation with one model, stored as it happens.

    `window`, `finish` and `answered_by` describe the last answer. `made_by` (models.provenance) is
    stored with each answer, `opens` and `settings` (history.Session) with the session. tools: what
    the model may call. memory: facts of the user that answers are given.
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
        tools: Toolbox | None = None,
        memory: ChatMemory | None = None,
    ):
        self.use_preset(preset, sampling or preset.sampling)
        self.engine, self.tools = engine, tools
        self.memory = memory or ChatMemory()
        self._sources = Sources()
        self.made_by = dict(made_by or {"model": preset.name})
        self.opens = dict(opens or {})
        self._stored = StoredConversation(history)
        self.window: Window | None = None
        self.finish: Finish | None = None
        self.answered_by = dict[str, Any]()
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
    def sources(self) -> Sources:
        """The sources of the chat, numbered; what tools find is among them."""
        return self.tools.sources if self.tools else self._sources

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
        if left := self._stored.take_forked_session():
            went_on = f"another llmchat continued session {left}"
            return f"{went_on}; this chat continues as session {self.session}"
        return ""

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
        return self.ask(Message("user", text, input, files=files))

    def ask(self, question: Message) -> Generator[Event]:
        """`send` for a question with all that belongs to it."""
        self._store(question)
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
        asked = self.memory.added_to(self.conversation)
        return can_resume(asked, self.preset, self.engine, self.sampling)

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
        self.memory.begin()
        self.window = self.finish = None

    def open(self, session: str, settings: Mapping[str, Any] | None = None) -> None:
        """Continue a stored session with the settings that were stored with it."""
        self.reset_settings()
        self.restore_settings(settings or {})
        self.window = self.finish = None
        self._stored.load(session)
        self.memory.begin(len(self.conversation.messages))

    def start_saving(self, history: "History") -> str:
        """Continue the conversation as a session of this history; returns its id."""
        return self._stored.start_saving(history, self._session_facts())

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

    def mark_passage(self, number: int, part: int, mark: Mark) -> FoundPassage:
        """Pin or exclude one passage of a message, or remove its mark; returns it."""
        return self._stored.mark_passage(number, part, mark)

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

    def tool_output(self, number: int) -> str:
        """The whole output of a tool call, counted from 1 as in ToolStarted."""
        return self._stored.tool_output(number)

    def current_window(self) -> Window:
        """The window of the conversation as it is."""
        if not self.conversation.spoken:
            raise UsageError("the chat is empty")
        return self.fit(self.conversation)

    def next_window(self) -> Window:
        """The window of the next question, without the tokens of the question."""
        if not self.conversation.spoken or self.conversation.spoken[-1].role == "user":
            return self.current_window()
        window = self.fit(self.conversation.say(""))
        return replace(window, messages=window.messages[:-1], ledger=window.ledger[:-1])

    def fit(self, conversation: Conversation, spare: int = 0) -> Window:
        """The window that a conversation has in this chat, with `spare` tokens left free."""
        actions = self._actions()
        asked = taught(self.memory.added_to(conversation), actions)
        tools = self._tool_request("auto", actions)
        context = replace(self.preset.context, tokens=self._limit - spare)
        preset = replace(self.preset, context=context) if spare else self.preset
        return window_of(asked, preset, self.engine, self.sampling, tools)

    def _answer(self, begun: Message | None = None, hint: str = "") -> Generator[Event]:
        try:
            if self.preset.context.policy == "summary":
                yield from self._make_room()
            yield from self._stream_answer(begun, hint)
            yield from self._run_tool_rounds(hint)
        finally:
            self._stored.release()

    def _run_tool_rounds(self, hint: str) -> Generator[Event]:
        """Run the calls of the last answer and answer again, until an answer calls nothing.

        After the last round, and after a round of repeated calls, the model must answer without
        tools.
        """
        for left in reversed(range(self.tools.max_rounds if self.tools else 0)):
            calls = tool_turn.calls_of(self.conversation.messages[-1])
            if not calls:
                return
            new = [
                call for call in calls if tool_turn.earlier_result(self.conversation, call) is None
            ]
            yield from self._run_calls(calls)
            yield from self._stream_answer(None, hint, "auto" if left and new else "none")

    def _run_calls(self, calls: list[Call]) -> Generator[Event]:
        """Run calls one after the other. Each gets a result, also where the user stops them."""
        waiting = list(calls)
        try:
            for call in calls:
                yield ToolStarted(call, tool_turn.count_results(self.conversation) + 1)
                result = self._run_call(call)
                self._store_result(waiting.pop(0), result)
                yield result
        finally:
            for call in waiting:
                self._store_result(call, Result(call, tool_turn.STOPPED, False))

    def _run_call(self, call: Call) -> Result:
        assert self.tools
        known = tool_turn.earlier_result(self.conversation, call)
        if known is not None:
            return Result(call, tool_turn.reminder(known))
        return self.tools.run(call, self.engine.count, self._limit)

    def _store_result(self, call: Call, result: Result) -> None:
        details = {"tool": msgspec.to_builtins(result)}
        self._store(Message("tool", result.text, call_id=call.id), details=details)

    def _actions(self) -> list[Action]:
        return active_actions(self.preset.actions, self.tools) if self.tools else []

    def _tool_request(self, choice: Choice, actions: Sequence[Action]) -> ToolRequest | None:
        """What the prompt offers: the tools that no action of the preset triggers."""
        if self.tools is None:
            return None
        without = {action.tool_name for action in actions}
        return self.tools.request(self.engine.count, self._limit, choice, without)

    def _generate(
        self, answer: AnswerRecord, actions: Sequence[Action], tools: ToolRequest | None, hint: str
    ) -> Generator[Event]:
        """The events of one answer, which goes on after each action in it."""
        spoken = self.conversation.messages
        before = spoken[:-1] if answer.text else spoken
        asked = self.memory.added_to(self._with_dropped(Conversation(before).with_hint(hint)))
        asked = taught(asked, actions)

        def generate(text: str) -> Generated:
            begun = (Message("assistant", text),) if text else ()
            conversation = Conversation((*asked.messages, *begun))
            return reply(conversation, self.preset, self.engine, self.sampling, tools)

        if self.tools is None:
            return generate(answer.text)
        return with_actions(generate, answer.text, actions, self.tools, self._run_call)

    def _with_dropped(self, asked: Conversation) -> Conversation:
        """A conversation with what its last question needs of the turns that a summary replaced."""
        if not self.preset.context.recalls or asked.summary is None:
            return asked
        window, count = self.fit(asked), self.engine.count
        return with_dropped(asked, window, count, self.sources, self.memory.meaning)

    @property
    def _limit(self) -> int:
        """Tokens of the context window."""
        return min(self.preset.context.tokens or self.engine.context, self.engine.context)

    def _stream_answer(
        self, begun: Message | None, hint: str, choice: Choice = "auto"
    ) -> Generator[Event]:
        """Stream an answer and store its text however it ends. begun: an answer to continue."""
        answer = AnswerRecord(begun.text if begun else "")
        actions = self._actions()
        tools = self._tool_request(choice, actions)
        events = self._generate(answer, actions, tools, hint)
        try:
            for event in events:
                answer.feed(event)
                self.window = answer.window
                yield event
        finally:
            events.close()
            self.finish, self.answered_by = answer.finish, self.made_by
            if answer.is_worth_storing:
                made = (self.made_by, self.sampling, self.preset.context, tools)
                details = answer.details(*made, resumed=begun is not None, hint=hint)
                # A continued answer replaces the shorter one.
                length = -1 if begun else None
                self._store(answer.message(), answer.finish, details, length)

    def _make_room(self) -> Generator[Event]:
        """Summarise what does not fit, and again if the summary itself displaces messages."""
        for _ in range(3):
            recalls = self.preset.context.recalls
            asked = (self.conversation, self._limit, self.engine.count, self.memory.meaning)
            spare = room_for(*asked) if recalls else 0
            window = self.fit(self.conversation, spare)
            if not window.left_out:
                return
            yield from self._summarise(window.left_out, window.covers)

    def _summarise(self, messages: tuple[Message, ...], covers: int) -> Generator[Event]:
        known = self.conversation.summary.text if self.conversation.summary else ""
        text = yield from summarise(messages, known, self.preset, self.engine, self._limit)
        self._store(Message("summary", text, covers=covers))

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
        return SessionFacts(self.preset.name, self.opens, self.stored_settings)
