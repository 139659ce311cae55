"""Read material of any size in pieces that fit the window, and join what they say: `--map`.

Each piece is read with the question; the notes on all pieces are the material of the last request.
Notes that do not fit together are joined in groups first. Every note is kept on disk until the
answer is complete, so that a run that was killed goes on where it stopped.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.attachments.docs_question import limit_of, most_beside
from llmchat.chat import Chat
from llmchat.conversation import Conversation, Message, material
from llmchat.engines import Chunk, Finish
from llmchat.errors import UsageError
from llmchat.memory.chunks import chunks
from llmchat.memory.readers import Document
from llmchat.output.formatting import counted, duration
from llmchat.reply import reply
from llmchat.settings import World, private_file
from llmchat.tools.material import framed

# Larger pieces are not read faster, and small models lose the thread.
MOST_TOKENS = 3000
NOTE_TOKENS = 250
_FEWEST_TOKENS = 100
_READ = (
    "This is part {number} of {count} of a long text. Note in a few short sentences what this part"
    " says about the following request; keep names and numbers. If it says nothing about it, answer"
    " only: nothing\n\nRequest: {question}"
)
_JOIN = (
    "These are notes on some parts of a long text. Join them into a few short sentences about the"
    " following request; keep names and numbers.\n\nRequest: {question}"
)
_ANSWER = (
    "These are notes on the parts of a long text, in order. Answer the following request from them."
)


class Line(Protocol):
    """Shows the progress, as `StatusLine` does."""

    def show(self, text: str, done: int, total: int) -> None: ...
    def print(self, line: str) -> None: ...
    def close(self) -> None: ...


class Notes:
    """The answers to requests, by a hash of the request; in a file, if there is one.

    A line that a killed process left half written is ignored.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._known: dict[str, str] = {}
        if path and path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    key, text = msgspec.json.decode(line, type=tuple[str, str])
                except msgspec.MsgspecError:
                    continue
                self._known[key] = text

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def keep(self, key: str, text: str) -> None:
        self._known[key] = text
        if self.path:
            private_file(self.path)
            with self.path.open("ab") as file:
                # The line end comes first: it ends what a killed process left.
                file.write(b"\n" + msgspec.json.encode((key, text)))

    def forget(self) -> None:
        """Delete the file: the answer is complete."""
        if self.path:
            self.path.unlink(missing_ok=True)


class _Cost(Struct):
    """What a run took: tokens read and written, and seconds."""

    read: int = 0
    written: int = 0
    begun: float = 0.0


def notes_for(chat: Chat, world: World, question: Message, *, keep: bool) -> Notes:
    """The notes of an earlier run with the same material, question and model."""
    made = msgspec.json.encode((question.text, question.input, chat.made_by), order="sorted")
    name = hashlib.sha256(made).hexdigest()[:32]
    return Notes(world.data / "map" / f"{name}.jsonl" if keep else None)


def with_notes(chat: Chat, question: Message, notes: Notes, line: Line) -> Message:
    """The question with notes on all of its material instead of the material itself.

    Raises UsageError if the window has no room for pieces.
    """
    size = _piece_tokens(chat, question.text)
    document = Document("", _whole(question))
    pieces = [one.text for one in chunks(document, chat.engine.count, size, 0)]
    reader = _Reader(chat, question.text, notes, line, len(pieces))
    found = reader.read(pieces)
    while len(found) > 1 and _tokens(chat, found) > size:
        found = reader.join(_groups(chat, found, size))
    reader.close()
    return _answering(question, found)


def _piece_tokens(chat: Chat, question: str) -> int:
    """Tokens of a piece: what the window leaves beside the request, its frame and the note."""
    request = _READ.format(number=999, count=999, question=question)
    room = most_beside(chat, request, framed("")) - NOTE_TOKENS
    if room < _FEWEST_TOKENS:
        raise UsageError(
            f"a window of {limit_of(chat):,} tokens has no room for pieces beside the question",
            "widen it with --context, or ask a shorter question",
        )
    return min(room, MOST_TOKENS)


def _whole(question: Message) -> str:
    """The material as one text; each of several parts below its name."""
    parts = [(name, text) for name, text in question.materials if text]
    if len(parts) == 1:
        return parts[0][1]
    return "\n\n".join(
        text if not name or text.startswith(f"{name}:\n") else f"{name}:\n{text}"
        for name, text in parts
    )


def _tokens(chat: Chat, texts: Iterable[str]) -> int:
    return sum(chat.engine.count(text) + 8 for text in texts)


def _groups(chat: Chat, notes: Sequence[str], size: int) -> list[list[str]]:
    """The notes in groups of at least two that have at most `size` tokens, if two fit."""
    groups: list[list[str]] = [[]]
    for note in notes:
        if len(groups[-1]) >= 2 and _tokens(chat, [*groups[-1], note]) > size:
            groups.append([])
        groups[-1].append(note)
    return groups


def _answering(question: Message, notes: Sequence[str]) -> Message:
    """The last request: the notes as material, and what they are."""
    named = [(f"notes {number}", note) for number, note in enumerate(notes, 1)]
    if not named:
        named = [("notes", "No part of the text says anything about the request.")]
    framed_notes = [(name, framed(note)) for name, note in named]
    text, files = material([*framed_notes, ("what the notes are", _ANSWER)])
    return replace(question, input=text, files=files)


class _Reader:
    """Asks the model for notes, one request after the other, and shows how far it is."""

    def __init__(self, chat: Chat, question: str, notes: Notes, line: Line, pieces: int):
        self._chat, self._question, self._notes, self._line = chat, question, notes, line
        self._cost = _Cost(begun=time.monotonic())
        self._done, self._total = 0, pieces
        self._asked = 0

    def read(self, pieces: Sequence[str]) -> list[str]:
        """The notes on the pieces that say something about the question."""
        requests = [
            Message("user", self._task(number, len(pieces)), framed(piece))
            for number, piece in enumerate(pieces, 1)
        ]
        self._announce(requests)
        found = [self._note(one, f"piece {n}") for n, one in enumerate(requests, 1)]
        return [one for one in found if one.strip(" .\n").casefold() not in ("", "nothing")]

    def join(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """One note for each group."""
        task = _JOIN.format(question=self._question)
        self._total += len(groups)
        requests = [Message("user", task, framed("\n\n".join(group))) for group in groups]
        return [self._note(one, f"notes {n}") for n, one in enumerate(requests, 1)]

    def close(self) -> None:
        """Print what it took."""
        self._line.close()
        if self._asked:
            seconds = duration(time.monotonic() - self._cost.begun)
            self._line.print(
                f"note: read {self._cost.read:,} tokens and wrote {self._cost.written:,} in"
                f" {seconds}, before the answer"
            )

    def _task(self, number: int, count: int) -> str:
        return _READ.format(number=number, count=count, question=self._question)

    def _announce(self, requests: Sequence[Message]) -> None:
        before = sum(self._notes.get(_key(one)) is not None for one in requests)
        tokens = sum(self._chat.engine.count(one.input) for one in requests)
        kept = f", {before} of them read before" if before else ""
        pieces = counted(len(requests), "piece")
        self._line.print(f"note: reading {counted(tokens, 'token')} in {pieces}{kept}")

    def _note(self, request: Message, what: str) -> str:
        self._line.show(f"{what} of {self._total}{self._left()}", self._done, self._total)
        known = self._notes.get(_key(request))
        if known is None:
            known = self._ask(request)
            self._notes.keep(_key(request), known)
        self._done += 1
        return known

    def _left(self) -> str:
        """The time that is left, judged by the requests of this run."""
        if not self._asked:
            return ""
        each = (time.monotonic() - self._cost.begun) / self._asked
        return f", about {duration(each * (self._total - self._done))} left"

    def _ask(self, request: Message) -> str:
        chat, text = self._chat, ""
        sampling = replace(
            chat.sampling, temperature=0.0, max_tokens=NOTE_TOKENS, structure=None, seed=0
        )
        with closing(reply(Conversation((request,)), chat.preset, chat.engine, sampling)) as events:
            for event in events:
                if isinstance(event, Chunk):
                    text += event.text
                elif isinstance(event, Finish):
                    self._cost.read += event.prompt_tokens - event.cached_tokens
                    self._cost.written += event.reply_tokens
        self._asked += 1
        return text.strip()


def _key(request: Message) -> str:
    return hashlib.sha256(f"{request.text}\0{request.input}".encode()).hexdigest()
