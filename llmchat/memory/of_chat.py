"""What a chat is given of the person's memory: facts, in a short block after the system text.

The facts are read when a chat begins and stay the same until it ends, so the block is always in the
KV cache. What is remembered meanwhile counts from the next chat on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmchat.conversation import Conversation, Message
from llmchat.settings.types import MemoryUse

if TYPE_CHECKING:
    from llmchat.memory.facts import Fact, Facts
    from llmchat.memory.meaning import Meaning

# A few hundred tokens: every chat reads them, and the window is for the conversation.
MOST_CHARACTERS = 2000
HEADING = "Facts about the user, remembered from earlier chats. Use them only where they help."


class ChatMemory:
    """The memory of one chat. Without `facts`, or switched off, it changes nothing.

    known: messages of the chat from which facts need not be proposed any more. meaning: finds by
    meaning what a summary replaced, with or without facts.
    """

    def __init__(
        self,
        facts: "Facts | None" = None,
        use: MemoryUse = "off",
        meaning: "Meaning | None" = None,
    ):
        self.facts, self.meaning = facts, meaning
        self.use: MemoryUse = use if facts else "off"
        self.block = ""
        self.begin()

    def begin(self, known: int = 0) -> None:
        """Read the facts for a chat that begins with this many messages."""
        self.known = known
        self.read()

    def read(self) -> None:
        """Read the facts for the following answers."""
        known = self.facts.all() if self.facts and self.use != "off" else []
        self.block = block(fitting(known))

    def switch(self, use: MemoryUse) -> None:
        """Use the facts as they are now, or no longer, from the next answer on."""
        self.use = use
        self.read()

    def added_to(self, conversation: Conversation) -> Conversation:
        """The conversation with the block, which is sent with it and not stored in it."""
        if not self.block:
            return conversation
        return Conversation((Message("memory", self.block), *conversation.messages))


def fitting(facts: "Sequence[Fact]") -> "list[Fact]":
    """The newest facts that fit into the block, oldest first."""
    kept: list[Fact] = []
    used = 0
    for fact in reversed(facts):
        used += len(fact.text) + len("- \n")
        if used > MOST_CHARACTERS:
            break
        kept.append(fact)
    return kept[::-1]


def block(facts: "Sequence[Fact]") -> str:
    """The facts as the model reads them; empty without facts."""
    return "\n".join([HEADING, *(f"- {fact.text}" for fact in facts)]) if facts else ""
