"""Bring back what a summary has replaced: parts of old turns that fit the question go beside it.

They go there for one answer only and are not stored, so that nothing is kept twice. The search is
in the messages themselves: it needs no index and nothing to keep up to date. It is by words, and
by meaning where there is an embedder.
"""

import math
from collections.abc import Callable, Sequence

from llmchat.conversation import Conversation, FoundPassage, Message
from llmchat.found_passages import name_of, with_passages
from llmchat.memory.chunks import chunks, estimated_tokens
from llmchat.memory.meaning import Meaning
from llmchat.memory.need import LEAST_SHARED, subject
from llmchat.memory.readers import Document
from llmchat.memory.searching import fused
from llmchat.memory.types import Hit, Passage
from llmchat.tools.material import without_marks
from llmchat.tools.sources import Place, Source, Sources
from llmchat.window import Window

SOURCE = "earlier in this chat"
# Tokens of a part that is searched, and what they share.
_LONGEST, _OVERLAP = 128, 16
_MOST_PARTS = 3
# Tokens of the blank lines between parts, and of pieces that join.
_JOINT = 4
# The part of the window that they may take, and only what is free.
_PART = 0.2
_BEGIN, _END = "--- said earlier in this chat ---", "--- end ---"
_REQUEST = "Now answer this message. Use what was said earlier only where it helps."


def with_dropped(
    conversation: Conversation,
    window: Window,
    count: Callable[[str], int],
    sources: Sources,
    meaning: Meaning | None = None,
) -> Conversation:
    """The conversation with what its last question asks for of the turns that its summary replaced.

    window: of the conversation; what is added fits into its free room.
    """
    index, summary = conversation.question, conversation.summary
    if index < 0 or summary is None:
        return conversation
    question = conversation.messages[index]
    room = min(int(window.limit * _PART), window.limit - window.reserve - window.tokens)
    dropped = conversation.spoken[: summary.covers]
    hits = _fitted(search(dropped, question.text, meaning), room, count)
    if not hits:
        return conversation
    found = [_numbered(hit, sources) for hit in hits]
    messages = list(conversation.messages)
    messages[index] = with_passages(question, found, _REQUEST)
    return Conversation(tuple(messages))


def room_for(
    conversation: Conversation,
    limit: int,
    count: Callable[[str], int],
    meaning: Meaning | None = None,
) -> int:
    """Tokens of what `with_dropped` would add to a conversation in an empty window of `limit`."""
    index, summary = conversation.question, conversation.summary
    if index < 0 or summary is None:
        return 0
    dropped = conversation.spoken[: summary.covers]
    hits = search(dropped, conversation.messages[index].text, meaning)
    chosen = _fitted(hits, int(limit * _PART), count)
    return _cost(chosen, count) if chosen else 0


def _cost(hits: Sequence[Hit], count: Callable[[str], int]) -> int:
    """Tokens of hits beside a question, with some for what joins them."""
    texts = [_text(_passage(hit, 0), hit) for hit in hits]
    return sum(map(count, [*texts, _REQUEST])) + _JOINT * (len(texts) + 1)


def search(messages: Sequence[Message], question: str, meaning: Meaning | None = None) -> list[Hit]:
    """The parts of messages that fit a question best, best first."""
    asked = subject(question)
    if not asked:
        return []
    parts = [
        (part, words)
        for number, one in enumerate(messages, 1)
        for part in _parts(number, one)
        # The same question asked before has nothing to tell.
        if (words := subject(part.text)) - asked
    ]
    by_words = _by_words(parts, asked)
    if meaning is None:
        return by_words[:_MOST_PARTS]
    near, fit = meaning.nearest(question, [part for part, _ in parts])
    return _both(by_words, near if fit or by_words else [])[:_MOST_PARTS]


def _both(by_words: Sequence[Hit], by_meaning: Sequence[Hit]) -> list[Hit]:
    """Two rankings as one, see `memory.searching.fused`."""
    if not by_meaning:
        return list(by_words)
    found = {_place(hit): hit for hit in (*by_words, *by_meaning)}
    numbers = {place: number for number, place in enumerate(found)}
    hits = list(found.values())
    ranked = fused(
        [(numbers[_place(hit)], hit.score) for hit in one] for one in (by_words, by_meaning)
    )
    return [Hit(hits[number].passage, score) for number, score in ranked]


def _place(hit: Hit) -> tuple[str, int]:
    return hit.passage.heading, hit.passage.start


def _by_words(parts: Sequence[tuple[Passage, set[str]]], asked: set[str]) -> list[Hit]:
    """The parts that share most of what a question is about, best first.

    A word that few parts have counts more, as in BM25.
    """
    rare = {word: _rarity(word, [words for _, words in parts]) for word in asked}
    hits = [
        Hit(part, sum(rare[word] for word in asked & words) / sum(rare.values()))
        for part, words in parts
        if len(asked & words) >= LEAST_SHARED * len(asked) > 0
    ]
    return sorted(hits, key=lambda hit: -hit.score)


def _rarity(word: str, subjects: Sequence[set[str]]) -> float:
    having = sum(word in one for one in subjects)
    return math.log(1 + (len(subjects) - having + 0.5) / (having + 0.5))


def _parts(number: int, message: Message) -> list[Passage]:
    """The parts of a message. What a tool returned was said by nobody."""
    said = message.role in ("user", "assistant") and message.mark != "excluded"
    if not said or not message.text.strip():
        return []
    title = f"message {number}, {message.role}"
    document = Document(SOURCE, message.text, title=title)
    return chunks(document, estimated_tokens, _LONGEST, _OVERLAP)


def _fitted(hits: Sequence[Hit], room: int, count: Callable[[str], int]) -> list[Hit]:
    """The best hits that fit, in the order in which they were said."""
    chosen: list[Hit] = []
    for hit in hits:
        if _cost([*chosen, hit], count) <= room:
            chosen.append(hit)
    return sorted(chosen, key=lambda hit: (_number(hit.passage), hit.passage.start))


def _number(part: Passage) -> int:
    """The number of the message that a part is of."""
    return int(part.heading.split(",")[0].removeprefix("message "))


def _passage(hit: Hit, n: int) -> FoundPassage:
    part = hit.passage
    return FoundPassage(n, part.source, part.start, part.end, hit.score, part.heading)


def _numbered(hit: Hit, sources: Sources) -> tuple[FoundPassage, str]:
    part = hit.passage
    place = Place(part.start, part.end, hit.score, part.text)
    source = Source(f"{SOURCE} › {part.heading}", f"{SOURCE}/{part.heading}", place)
    passage = _passage(hit, sources.number(source))
    return passage, _text(passage, hit)


def _text(passage: FoundPassage, hit: Hit) -> str:
    """A part as the model reads it: named, and in a frame which it cannot spell."""
    words = without_marks(hit.passage.text).replace(_BEGIN, "").replace(_END, "")
    return f"{name_of(passage)}\n{_BEGIN}\n{words}\n{_END}"
