"""The conversation of a chat, written to the history as it happens.

The session begins with the first question. How sessions are stored, and what happens when two
processes continue the same one, belongs to `history`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, FoundPassage, Mark, Message
from llmchat.engines import Finish
from llmchat.errors import UsageError
from llmchat.output.formatting import counted

if TYPE_CHECKING:
    from llmchat.history import BranchWriter, History


class SessionFacts(Struct, frozen=True):
    """What is stored with a session: its model, the options that open it, and the settings."""

    model: str
    opens: Mapping[str, Any]
    settings: Mapping[str, Any]


class StoredConversation:
    """A conversation and its session in the history."""

    def __init__(self, history: "History"):
        self.history = history
        self.conversation = Conversation()
        self._saved_facts: tuple[str, SessionFacts] | None = None
        self._writer: BranchWriter | None = None

    @property
    def session(self) -> str | None:
        """The id of the session; None before the first question."""
        return self._writer.session if self._writer else None

    def load(self, session: str) -> None:
        """Continue a stored session."""
        from llmchat.history import BranchWriter

        self._writer = BranchWriter(self.history, session)
        self.conversation = self._writer.conversation

    def restart(self) -> None:
        """Start a new session with the same system text."""
        self._writer = None
        system = self.conversation.system
        self.conversation = Conversation((Message("system", system),) if system else ())

    def stop_saving(self) -> None:
        """Continue the conversation in memory only."""
        from llmchat.history import History

        self.history, self._writer = History(None), None

    def start_saving(self, history: "History", facts: SessionFacts) -> str:
        """Continue in another history, with all that this one has; returns the session."""
        records = self.history.messages(self.session) if self.session else []
        self.history = history
        writer = self._writer = self._begin_session(facts)
        for one in records:
            writer.append(one.message, _finish_of(one.details), one.details)
        writer.release()
        return writer.session

    def append(
        self,
        message: Message,
        facts: SessionFacts,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
        length: int | None = None,
    ) -> None:
        """Add a message after the first `length` messages, or after all of them."""
        kept = self.conversation.messages[:length]
        self.conversation = Conversation((*kept, message))
        writer = self._writer = self._writer or self._begin_session(facts)
        # Messages from before the session began, or that a full disk did not let us store.
        for earlier in kept[len(writer.ids) :]:
            writer.append(earlier)
        writer.append(message, finish, details, length=len(kept))
        if message.role == "user":
            self.save_facts(facts)

    def _begin_session(self, facts: SessionFacts) -> "BranchWriter":
        from llmchat.history import BranchWriter

        return BranchWriter(
            self.history, self.history.begin(facts.model, facts.opens, facts.settings)
        )

    def instruct(self, system: str) -> None:
        """Set the system text for the following answers."""
        self.conversation = self.conversation.instruct(system)
        if self._writer:
            self._writer.append(self.conversation.messages[-1])

    def rewind(self, length: int, question: int | None = None) -> None:
        """Go back to the first `length` messages; the history keeps the others as a branch.

        question: index of a question that will be answered again.
        """
        self.conversation = Conversation(self.conversation.messages[:length])
        if self._writer:
            self._writer.rewind(length, question)

    def fork(self) -> str:
        """Continue in a new session that shares all messages so far; returns its id."""
        return self._stored().fork()

    def show_alternative(self, step: int) -> tuple[int, int]:
        """Switch to the next (1) or previous (-1) answer to the last question.

        Returns its number and how many answers there are.
        """
        writer = self._stored()
        position = writer.alternative(step)
        self.conversation = writer.conversation
        return position

    def mark_passage(self, number: int, part: int, mark: Mark) -> FoundPassage:
        """Mark one passage of a spoken message, both counted from 1; returns the passage."""
        index, messages = self._index_of(number), list(self.conversation.messages)
        passages = list(messages[index].passages)
        if not 1 <= part <= len(passages):
            raise UsageError(
                f"message {number} has {counted(len(passages), 'passage')}, so no {number}.{part}",
                "`/context` numbers them",
            )
        passages[part - 1] = replace(passages[part - 1], mark=mark)
        messages[index] = replace(messages[index], passages=tuple(passages))
        self._stored().mark_passages(index, tuple(passages))
        self.conversation = Conversation(tuple(messages))
        return passages[part - 1]

    def _index_of(self, number: int) -> int:
        """The index of a spoken message, counted from 1."""
        messages = self.conversation.messages
        spoken = [i for i, one in enumerate(messages) if one.role not in ("system", "summary")]
        if not 1 <= number <= len(spoken):
            raise UsageError(f"there is no message {number}", "`/context` numbers them")
        return spoken[number - 1]

    def mark(self, number: int, mark: Mark) -> Message:
        """Set or remove the mark of a spoken message, counted from 1; returns the message."""
        messages = list(self.conversation.messages)
        marked, writer = self._index_of(number), self._stored()
        for index in self.conversation.turn(marked):
            # A turn has one mark: the last one given.
            wanted: Mark = mark if index == marked else ""
            if messages[index].mark != wanted:
                messages[index] = replace(messages[index], mark=wanted)
                writer.mark(index, wanted)
        self.conversation = Conversation(tuple(messages))
        return messages[marked]

    def save_facts(self, facts: SessionFacts) -> None:
        """Store the facts with the session if they changed."""
        writer = self._writer
        # A session that another process continued keeps its facts; our fork will have these.
        if writer and self._saved_facts != (writer.session, facts) and writer.is_current():
            self.history.remember(writer.session, facts.model, facts.opens, facts.settings)
            self._saved_facts = (writer.session, facts)

    def last_hint(self) -> str:
        """The hint that the last answer was generated with."""
        records = self.history.messages(self.session) if self.session else []
        return str(records[-1].details.get("hint", "")) if records else ""

    def tool_output(self, number: int) -> str:
        """The whole output of a tool call, also where the model got a part of it."""
        records = self.history.messages(self.session) if self.session else []
        outputs = [record for record in records if record.message.role == "tool"]
        if not 1 <= number <= len(outputs):
            known = f"the calls are numbered 1 to {len(outputs)}" if outputs else ""
            raise UsageError(f"there is no tool call {number}", known)
        record = outputs[number - 1]
        return str(record.details.get("tool", {}).get("whole") or record.message.text)

    def take_forked_session(self) -> str | None:
        """The session that this chat had to leave since the last call, if there is one."""
        return self._writer.take_left_session() if self._writer else None

    def release(self) -> None:
        """Unlock the question whose answer is complete."""
        if self._writer:
            self._writer.release()

    def _stored(self) -> "BranchWriter":
        if self._writer is None:
            raise UsageError("the chat is empty")
        return self._writer


def _finish_of(details: Mapping[str, Any]) -> Finish | None:
    """How a stored answer ended; None for other messages."""
    known = {name: details[name] for name in Finish.__struct_fields__ if name in details}
    return Finish(**known) if "reason" in known else None
