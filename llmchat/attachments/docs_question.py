"""Put passages of documents beside a question of a chat: `--docs NAME` and `/docs`."""

from collections.abc import Sequence

from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.docs_material import Room, room_beside, source_of
from llmchat.docs_material import with_hits as with_fitting_hits
from llmchat.found_passages import passages_of
from llmchat.memory.types import Hit, Passage


def with_documents(
    chat: Chat, question: Message, documents: Documents, *, required: bool = False
) -> Message:
    """The question with passages before its other material, numbered in `chat.sources`.

    Unchanged if nothing is searched, if it needs no search, or if nothing is found. required: give
    it passages in any case.
    """
    if not documents.names or not question.text:
        return question
    return with_hits(chat, question, documents.search(question.text, required=required))


def with_hits(chat: Chat, question: Message, hits: Sequence[Hit]) -> Message:
    """The question with the best hits that fit before its other material; unchanged if none do."""
    _know_numbers(chat)
    room = _room(chat, question.text, question.input)
    return with_fitting_hits(question, _wanted(chat, hits), room, chat.engine, chat.sources)


def _know_numbers(chat: Chat) -> None:
    """A passage of an earlier message keeps its number, also after the chat was reopened."""
    for message in chat.conversation.messages:
        for passage, text in passages_of(message):
            chat.sources.know(passage.n, source_of(passage, text))


def _wanted(chat: Chat, hits: Sequence[Hit]) -> list[Hit]:
    """The hits without passages that the user dropped, and those that are sent anyway."""
    marked = {
        (one.source, one.start, one.end)
        for message in chat.conversation.messages
        for one in message.passages
        if one.mark
    }
    return [one for one in hits if _key(one.passage) not in marked]


def _key(passage: Passage) -> tuple[str, int, int]:
    return passage.source, passage.start, passage.end


def limit_of(chat: Chat) -> int:
    """Tokens of the window."""
    context = chat.engine.context
    return min(chat.preset.context.tokens or context, context)


def most_beside(chat: Chat, *texts: str) -> int:
    """Tokens that the window has for material beside these texts of one question."""
    return _room(chat, *texts).left


def _room(chat: Chat, *texts: str) -> Room:
    kept = (*texts, chat.conversation.system, chat.memory.block)
    return room_beside(chat.engine, limit_of(chat), kept)
