"""Material that does not fit the window: it is indexed for this chat, and searched instead."""

from collections.abc import Mapping

from msgspec.structs import replace

from llmchat.attachments.docs_question import with_documents
from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.conversation import Conversation, Message
from llmchat.errors import ContextOverflow
from llmchat.memory.readers import Document
from llmchat.output.formatting import byte_count


def with_material(
    chat: Chat, question: Message, documents: Documents, known: Mapping[str, Document]
) -> Message:
    """The question with what its documents say, and with its material if the window holds it.

    Otherwise the material is searched, now and for the next questions, and a note says so. known:
    the documents of parts of the material, by name.
    """
    if not question.text or fits(chat, question):
        return with_documents(chat, question, documents)
    documents.note(
        f"the attached text ({byte_count(len(question.input.encode()))}) does not fit the window:"
        " it is searched for each question; `chat --map` reads all of it"
    )
    parts = (known.get(name) or Document(name, text) for name, text in question.materials)
    documents.attach(list(parts))
    return with_documents(chat, replace(question, input="", files=()), documents, required=True)


def fits(chat: Chat, question: Message) -> bool:
    """Whether the window holds the question with all of its material."""
    if not question.input:
        return True
    system = Message("system", chat.conversation.system)
    try:
        chat.fit(Conversation((*((system,) if system.text else ()), question)))
    except ContextOverflow:
        return False
    return True
