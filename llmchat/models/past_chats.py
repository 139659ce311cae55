"""Find past chats by what was meant: an index of all turns, in a file of its own.

Each search first brings the index up to date with the history. What is deleted there leaves this
index, and every other one that holds chats, at once.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from llmchat.errors import LlmchatError
from llmchat.history import History, Hit, Turn
from llmchat.memory.erasing import erase
from llmchat.memory.index import Index
from llmchat.memory.need import fitting
from llmchat.memory.places import index_names, index_path
from llmchat.memory.readers import Document
from llmchat.memory.types import Embedder, Passage
from llmchat.memory.types import Hit as MemoryHit
from llmchat.output.progress import Progress
from llmchat.settings import World

_SOURCE = re.compile(r"session:([^/]+)/(\d+)")
# Passages that are looked at for one result: several may be of one chat.
_PER_RESULT = 10
_SNIPPET = 200


class PastPassage(Struct, frozen=True):
    """A passage of a past chat that fits a question. message: the last one of its turn."""

    session: str
    message: int
    passage: Passage
    score: float


def source_of(session: str, message: int | None = None) -> str:
    """The source of a session in an index, or of the turn that ends with a message."""
    return f"session:{session}" if message is None else f"session:{session}/{message}"


def turn_of(source: str) -> tuple[str, int] | None:
    """The session and the last message of a source; None if it is not one of a chat."""
    match = _SOURCE.fullmatch(source)
    return (match[1], int(match[2])) if match else None


def document_of(turn: Turn) -> Document:
    """A turn as an index holds it."""
    text = "\n\n".join(filter(None, (turn.question, turn.answer)))
    return Document(source_of(turn.session, turn.message), text, title=turn.title)


class PastChats:
    """The past chats of a user.

    note: is called with what the user should know. open_embedder: by default that of
    `models.embedding`.
    """

    def __init__(
        self,
        world: World,
        note: Callable[[str], None] = lambda line: None,
        open_embedder: Callable[[World, str], Embedder] | None = None,
    ):
        self._world = world
        self._note = note
        self._open_embedder = open_embedder

    def find(
        self, history: History, question: str, limit: int, progress: Progress | None = None
    ) -> list[PastPassage]:
        """The passages nearest to a question, best first; by words where no embedder is here."""
        with self._updated(history, progress) as (index, embedder):
            return _past(index.search(question, limit * _PER_RESULT, embedder))

    def recall(
        self,
        history: History,
        question: str,
        limit: int,
        without: Collection[int] = (),
        progress: Progress | None = None,
    ) -> list[PastPassage]:
        """The passages that a question is about, best first; none if not even the best fits it.

        without: messages whose turns are left out.
        """
        with self._updated(history, progress) as (index, embedder):
            sources = (one.source for one in index.documents())
            own = {one for one in sources if (turn := turn_of(one)) and turn[1] in without}
            return _past(fitting(index, question, limit, embedder, own))

    @contextmanager
    def _updated(
        self, history: History, progress: Progress | None
    ) -> Iterator[tuple[Index, Embedder | None]]:
        """The index of all turns, and what reads it."""
        path = index_file(self._world)
        with Index.open(path, create=True) as index:
            embedder = self._embedder(index)
            update(path, history, embedder, progress)
            yield index, embedder

    def chats(
        self, history: History, question: str, limit: int, progress: Progress | None = None
    ) -> list[Hit]:
        """The best passage of each chat that fits a question, best first."""
        best: dict[str, PastPassage] = {}
        for one in self.find(history, question, limit, progress=progress):
            best.setdefault(one.session, one)
        turns = {turn.message: turn for turn in history.turns(one.message for one in best.values())}
        found = [_hit(one, turns[one.message]) for one in best.values() if one.message in turns]
        return found[:limit]

    def _embedder(self, index: Index) -> Embedder | None:
        from llmchat.models.embedding import open_embedder

        try:
            return (self._open_embedder or open_embedder)(self._world, index.embedder)
        except LlmchatError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self._note(f"searching by words alone: {error.message}{hint}")
            return None


def _past(hits: Iterable[MemoryHit]) -> list[PastPassage]:
    return [
        PastPassage(*turn, hit.passage, hit.score)
        for hit in hits
        if (turn := turn_of(hit.passage.source))
    ]


def _hit(found: PastPassage, turn: Turn) -> Hit:
    """A passage as `sessions search` prints it."""
    snippet = " ".join(found.passage.text.split())[:_SNIPPET]
    role = "assistant" if turn.answer else "user"
    score = round(found.score, 4)
    return Hit(turn.session, turn.title, turn.message, role, turn.created, snippet, score)


def update(
    path: Path,
    history: History,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> None:
    """Add to an index the turns that it does not hold yet, and erase those that are gone."""
    with Index.open(path) as index:
        here = history.turn_ids()
        known = {turn for one in index.documents() if (turn := turn_of(one.source))}
        erase(path, (source_of(*turn) for turn in known - here))
        new = history.turns(message for _, message in sorted(here - known, key=lambda one: one[1]))
        # Without the embedder first: then the vectors of many short turns are computed together.
        index.add(map(document_of, new))
        if embedder is not None:
            index.add((), embedder, progress)


def forget(sessions: Iterable[str], world: World) -> None:
    """Remove sessions from every index, with nothing left of them in its file."""
    sources = [source_of(session) for session in sessions]
    for path in _indexes(world):
        erase(path, sources)


def _indexes(world: World) -> Sequence[Path]:
    own = index_file(world)
    named = [index_path(world, name) for name in index_names(world)]
    return [*([own] if own.is_file() else []), *named]


def index_file(world: World) -> Path:
    """The index of past chats."""
    return world.data / "past-chats.sqlite"
