"""The documents of a chat request: passages of the indexes in `docs`, and files of its messages.

Files go whole where the window holds them beside the messages; otherwise they are searched for the
last question, as the indexes are.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.docs_material import Room, room_beside, with_hits
from llmchat.engines import Counter
from llmchat.memory.readers import Document
from llmchat.memory.types import Hit
from llmchat.models.index_search import joined
from llmchat.prompt import plain_text
from llmchat.server.api import ChatRequest
from llmchat.server.documents import ServedDocuments
from llmchat.server.errors import BadRequest
from llmchat.server.request_messages import file_ids, to_conversation
from llmchat.tools.sources import NumberedSource, Sources
from llmchat.window import Window


class Asked(Struct, frozen=True):
    """A conversation with its documents. searched: the names of files that were too large."""

    conversation: Conversation
    sources: tuple[NumberedSource, ...] = ()
    searched: tuple[str, ...] = ()


def wants_documents(request: ChatRequest) -> bool:
    return bool(request.docs) or any(file_ids(request.messages))


class Placing:
    """Finds the documents of one request and places them in its conversation. Slow: it counts
    tokens and searches.

    limit: tokens of the window. whole: all messages are sent, none is dropped.
    """

    def __init__(
        self,
        request: ChatRequest,
        documents: ServedDocuments,
        user: str,
        engine: Counter,
        limit: int,
        *,
        whole: bool,
    ):
        documents.check(request.docs or ())
        self._request, self._documents, self._user = request, documents, user
        self._engine, self._limit, self._whole = engine, limit, whole

    def asked(self) -> Asked:
        """Raises NoFile and BadRequest."""
        ids = list(dict.fromkeys(chain(*file_ids(self._request.messages))))
        files = {id: self._documents.files.document(self._user, id) for id in ids}
        conversation = to_conversation(self._request.messages, files)
        room = self._room(conversation)
        if room.left < 0 and files:
            bare = Conversation(tuple(map(_without_files, conversation.messages)))
            question = conversation.messages[conversation.question]
            required = bool(question.files) or not question.text
            hits = self._in_files(ids, list(files.values()), question.text, required=required)
            return self._with(bare, hits, [one.source for one in files.values()])
        return self._with(Conversation(tuple(map(_kept, conversation.messages))), [], [])

    def _with(self, conversation: Conversation, hits: list[Hit], searched: list[str]) -> Asked:
        """The conversation with passages of files and of indexes beside its last question."""
        place, sources = conversation.question, Sources()
        question = conversation.messages[place]
        in_docs = self._documents.found(question.text, self._request.docs or ())
        both = joined([hits, in_docs])
        room = self._room(conversation)
        messages = list(conversation.messages)
        messages[place] = with_hits(question, both, room, self._engine, sources)
        return Asked(Conversation(tuple(messages)), sources.take(), tuple(searched))

    def _in_files(
        self, ids: Sequence[str], documents: Sequence[Document], question: str, *, required: bool
    ) -> list[Hit]:
        path, *others = {self._documents.files.index_path(self._user, id) for id in ids}
        if others:
            raise BadRequest("the files of the messages belong to several chats", param="messages")
        return self._documents.found_in_files(question, path, documents, required=required)

    def _room(self, conversation: Conversation) -> Room:
        """The room beside what is sent in any case."""
        messages, last = conversation.messages, conversation.question
        sent = [
            one
            for index, one in enumerate(messages)
            if self._whole or index == last or one.role == "system" or one.input
        ]
        return room_beside(self._engine, self._limit, map(plain_text, sent))


def _without_files(message: Message) -> Message:
    return replace(message, input="", files=())


def _kept(message: Message) -> Message:
    """A message with a file stays in the window."""
    return replace(message, mark="pinned") if message.files else message


def sent_sources(window: Window, sources: Sequence[NumberedSource]) -> list[dict[str, Any]]:
    """The sources that a window sends, in the form of `llmchat chat --json`."""
    sent = {one.n for message in window.messages for one in message.passages}
    return [_cited(one) for one in sources if one.n in sent]


def _cited(source: NumberedSource) -> dict[str, Any]:
    cited: dict[str, Any] = {"n": source.n, "source": source.url, "title": source.title}
    if place := source.place:
        score = float(f"{place.score:.4g}")
        cited |= {"start": place.start, "end": place.end, "score": score, "text": place.text}
    return cited
