"""Sections of Markdown and reStructuredText: a part under each heading."""

import re
from collections.abc import Iterable, Iterator

from llmchat.memory.readers.types import Section

_JOIN = " > "
_HASHES = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ADORNMENT = re.compile(r"([!-/:-@[-`{-~])\1{2,}[ \t]*$")


class Heading:
    """A heading: where its section begins, its level from 1 on, and its title."""

    def __init__(self, start: int, level: int, title: str):
        self.start, self.level, self.title = start, level, title


def markdown_sections(text: str) -> tuple[Section, ...]:
    """The sections of Markdown, by `#` and underlined headings outside of code blocks."""
    return tuple(_sections(_markdown_headings(text), len(text)))


def rest_sections(text: str) -> tuple[Section, ...]:
    """The sections of reStructuredText; the first adornment that is used is the highest level."""
    return tuple(_sections(_rest_headings(text), len(text)))


def _sections(headings: Iterable[Heading], length: int) -> Iterator[Section]:
    path: list[Heading] = []
    start, name = 0, ""
    for one in headings:
        if one.start > start:
            yield Section(start, one.start, name)
        path = [above for above in path if above.level < one.level] + [one]
        start, name = one.start, _JOIN.join(above.title for above in path)
    if start < length:
        yield Section(start, length, name)


def _markdown_headings(text: str) -> Iterator[Heading]:
    # title: a paragraph of one line, which the next line may underline.
    fence, title, title_at, in_paragraph = "", "", 0, False
    for place, line in _lines(text):
        is_text = False
        if mark := _FENCE.match(line):
            fence = _after_fence(fence, mark[1], line)
        elif not fence and (found := _HASHES.match(line)):
            yield Heading(place, len(found[1]), found[2])
        elif title and (found := _SETEXT.match(line)):
            yield Heading(title_at, 1 if found[1][0] == "=" else 2, title)
        else:
            is_text = not fence and bool(line.strip())
        title, title_at = ("" if in_paragraph or not is_text else line.strip()), place
        in_paragraph = is_text


def _after_fence(fence: str, mark: str, line: str) -> str:
    """The fence that is open after a line with one; empty for none."""
    if not fence:
        return mark
    closes = mark[0] == fence[0] and len(mark) >= len(fence) and not line.strip(" \t" + mark[0])
    return "" if closes else fence


def _rest_headings(text: str) -> Iterator[Heading]:
    levels: list[str] = []
    lines = list(_lines(text))
    for number in range(1, len(lines)):
        place, title = lines[number - 1]
        under = _ADORNMENT.match(lines[number][1])
        if not under or not _is_title(title, lines[number][1]):
            continue
        above = lines[number - 2] if number > 1 else (0, "")
        over = above[1].rstrip() == lines[number][1].rstrip()
        style = under[1] * 2 if over else under[1]
        if style not in levels:
            levels.append(style)
        yield Heading(above[0] if over else place, levels.index(style) + 1, title.strip())


def _is_title(title: str, under: str) -> bool:
    """Whether a line over an adornment is a title: text, not longer than the adornment."""
    text = title.strip()
    return bool(text) and not _ADORNMENT.match(title) and len(text) <= len(under.rstrip()) + 2


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines without their ends, each behind its place in the text."""
    place = 0
    for line in text.split("\n"):
        yield place, line
        place += len(line) + 1
