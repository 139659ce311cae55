"""Cut a document into passages that follow its structure.

A passage never crosses a section, except that sections which are too short to stand alone join the
next one. Within a section it ends after a paragraph if it can, else after a line, a sentence or a
word. Consecutive passages of a section share `overlap` tokens.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from llmchat.memory.readers.types import Document, Section
from llmchat.memory.types import Passage

Count = Callable[[str], int]
_Span = tuple[int, int]

# Where a text may be cut, the best place first.
_CUTS = tuple(
    re.compile(pattern)
    for pattern in (r"\n[ \t]*\n\s*", r"\n", r"(?<=[.!?…;:])[\s]+|(?<=[。！？；])", r"\s+")
)
# Sections of less than a quarter of a passage join the next one.
_SHORT = 4
_WORD = re.compile(r"[^\W_]+|[^\w\s]")
# Scripts without spaces: each character is about a token.
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LETTERS = 6


def estimated_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer: words, parts of long words, and signs."""
    unspaced = len(_UNSPACED.findall(text))
    words = (1 + (len(word) - 1) // _LETTERS for word in _WORD.findall(_UNSPACED.sub(" ", text)))
    return sum(words) + unspaced


def chunks(document: Document, count: Count, longest: int, overlap: int) -> list[Passage]:
    """The passages of a document, in order; each has at most `longest` tokens as `count` counts.

    longest and overlap are in tokens; overlap is less than half of longest.
    """
    text, found = document.text, list[Passage]()
    for section in _joined(document.parts, text, count, longest):
        for start, end in _packed(text, section, count, longest, overlap):
            start, end = _trimmed(text, start, end)
            if end > start:
                passage = Passage(document.source, start, end, text[start:end], section.heading)
                found.append(passage)
    return found


def _joined(
    sections: Iterable[Section], text: str, count: Count, longest: int
) -> Iterator[Section]:
    """The sections; one that is very short, such as a lone heading, joins the next."""
    waiting: Section | None = None
    for section in sections:
        if waiting:
            heading = _both(waiting.heading, section.heading)
            section = Section(waiting.start, section.end, heading)
        waiting = section if _is_short(text, section, count, longest) else None
        if not waiting:
            yield section
    if waiting:
        yield waiting


def _both(first: str, second: str) -> str:
    """The heading of two sections that were joined; one below the other names both."""
    if second.startswith(first):
        return second
    return f"{first}, {second}" if second else first


def _is_short(text: str, section: Section, count: Count, longest: int) -> bool:
    size = section.end - section.start
    # A token has at least one character, and seldom more than ten.
    return size < longest * 10 and count(text[section.start : section.end]) < longest // _SHORT


def _packed(
    text: str, section: Section, count: Count, longest: int, overlap: int
) -> Iterator[_Span]:
    """Spans of at most `longest` tokens, each beginning with the end of the one before."""
    start, end, used = section.start, section.start, 0
    for piece_start, piece_end in _pieces(text, section.start, section.end, count, longest):
        tokens = count(text[piece_start:piece_end])
        if used and used + tokens > longest:
            yield start, end
            start = _overlap_start(text, start, end, count, min(overlap, longest - tokens))
            used = count(text[start:end]) if start < end else 0
        end, used = piece_end, used + tokens
    if end > start:
        yield start, end


def _overlap_start(text: str, start: int, end: int, count: Count, overlap: int) -> int:
    """Where the last whole sentences or lines of a span begin that have at most `overlap` tokens.

    `end` where not even the last one fits.
    """
    if overlap <= 0:
        return end
    window = max(start, end - overlap * 10)
    cuts = {window + one.end() for cut in _CUTS[1:3] for one in cut.finditer(text[window:end])}
    for place in sorted(cuts):
        if place > start and text[place:end].strip() and count(text[place:end]) <= overlap:
            return place
    return end


def _pieces(
    text: str, start: int, end: int, count: Count, longest: int, level: int = 0
) -> Iterator[_Span]:
    """Spans of at most `longest` tokens, cut at the best places."""
    # What is far too long is cut before it is counted: a tokenizer takes time and memory.
    if end - start <= longest * 20 and count(text[start:end]) <= longest:
        yield start, end
    elif level == len(_CUTS):
        yield from _halves(text, start, end, count, longest)
    else:
        # Single words would be many: they stay together up to half of a passage.
        least = longest // 2 if level == len(_CUTS) - 1 else 1
        for inner_start, inner_end in _cut(text, start, end, _CUTS[level], least):
            yield from _pieces(text, inner_start, inner_end, count, longest, level + 1)


def _cut(text: str, start: int, end: int, cut: re.Pattern[str], least: int) -> Iterator[_Span]:
    """Spans of at least `least` characters, each up to the end of a match."""
    place = start
    for one in cut.finditer(text, start, end):
        if one.end() - place >= max(least, 1):
            yield place, one.end()
            place = one.end()
    if place < end:
        yield place, end


def _halves(text: str, start: int, end: int, count: Count, longest: int) -> Iterator[_Span]:
    """A text without any place to cut, in pieces of equal length."""
    size = end - start
    step = max(1, min(size // 2, longest * 4))
    for place in range(start, end, step):
        stop = min(place + step, end)
        if stop - place > 1 and count(text[place:stop]) > longest:
            yield from _halves(text, place, stop, count, longest)
        else:
            yield place, stop


def _trimmed(text: str, start: int, end: int) -> _Span:
    """A span without the white space around it; indentation of its first line stays."""
    while end > start and text[end - 1].isspace():
        end -= 1
    begin = start
    while begin < end and text[begin].isspace():
        begin += 1
    return max(start, text.rfind("\n", start, begin) + 1), end
