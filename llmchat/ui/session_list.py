"""The saved chats as rows to choose from: what fits a search, and how a row looks.

Titles come from others, so their control characters are removed, and so are the invisible ones that
join emoji: terminals disagree on how wide those are.
"""

import re
import unicodedata
from collections.abc import Callable

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from llmchat.history import Overview
from llmchat.output.formatting import counted
from llmchat.output.terminal_text import harmless
from llmchat.ui import fuzzy, transcript
from llmchat.ui.fuzzy import Candidate, Found

# Sessions that are read before a search or the last of them requires all.
_FIRST = 200
# Cells from which on a row shows the model, the age in words with the turns, and long names.
_WIDE, _WIDER, _WIDEST = 56, 76, 120
_MODEL, _LONG_MODEL = 18, 28
# Characters that change the width of the emoji before or after them.
_JOINERS = re.compile("[\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff\U0001f3fb-\U0001f3ff]")


class SessionList:
    """The sessions that fit what is typed, and the chosen one. `read` returns the latest ones."""

    def __init__(self, read: Callable[[int | None], list[Overview]], current: str | None = None):
        self.current = current
        self._read = read
        self._sessions = read(_FIRST)
        self._is_whole = len(self._sessions) < _FIRST
        self._candidates = list(map(_candidate, self._sessions))
        self._query, self.found, self.at, self._top = "", list[Found](), 0, 0
        self.search("")

    def search(self, query: str) -> None:
        """Show the sessions that fit, the best one chosen; without a query, the one before this."""
        if query.strip():
            self._read_all()
        self._query, self.found = query, fuzzy.search(query, self._candidates)
        is_current = bool(self._sessions) and self._sessions[0].id == self.current
        self.at = int(not query.strip() and is_current and len(self.found) > 1)
        self._top = 0

    def move(self, rows: int) -> None:
        """Choose another one, so many rows below."""
        if self.at + rows >= len(self.found) - 1 and not self._is_whole:
            self._read_all()
            self.found = fuzzy.search(self._query, self._candidates)
        self.at = max(0, min(self.at + rows, len(self.found) - 1))

    def __len__(self) -> int:
        """How many sessions there are, as far as they are read."""
        return len(self._sessions)

    @property
    def chosen(self) -> Overview | None:
        return self._sessions[self.found[self.at].index] if self.found else None

    @property
    def count(self) -> str:
        """How many sessions fit."""
        if not self._is_whole:
            return f"{len(self.found):,} latest"
        if len(self.found) == len(self._sessions):
            return counted(len(self.found), "chat")
        return f"{len(self.found):,} of {len(self._sessions):,}"

    def window(self, rows: int) -> list[tuple[int, Overview, Found]]:
        """The rows that fit on the screen, with their places; the chosen one is among them."""
        self._top = max(min(self._top, self.at, len(self.found) - rows), self.at - rows + 1, 0)
        shown = self.found[self._top : self._top + rows]
        return [
            (self._top + offset, self._sessions[one.index], one) for offset, one in enumerate(shown)
        ]

    def _read_all(self) -> None:
        if not self._is_whole:
            self._sessions, self._is_whole = self._read(None), True
            self._candidates = list(map(_candidate, self._sessions))


def _candidate(session: Overview) -> Candidate:
    texts = (clean(session.title), clean(session.model), clean(session.question))
    return Candidate(tuple(map(fuzzy.folded, texts)), names=2)


def clean(text: str) -> str:
    """A text of others on one line, of which each character has a known width."""
    line = " ".join(harmless(_JOINERS.sub("", text)).split())
    return "".join(letter for letter in line if unicodedata.category(letter) not in ("Cf", "Co"))


def row(
    session: Overview, found: Found, width: int, now: float, *, chosen: bool, current: bool
) -> StyleAndTextTuples:
    """A session as one row: its title with the letters that were found, model, age and turns."""
    style = "class:selected" if chosen else ""
    details = _details(session, width, now)
    mark = "❯ " if chosen else "* " if current else "  "
    label, letters = _label(session, found)
    room = width - get_cwidth(mark) - get_cwidth(details) - 1
    shown = cut(label, room)
    fragments: StyleAndTextTuples = [(style, mark)]
    for place, letter in enumerate(shown):
        hit = ("class:selected underline" if chosen else "class:match") if place in letters else ""
        fragments.append((hit or style, letter))
    blanks = " " * (room - get_cwidth(shown))
    return [*fragments, (style, blanks), (style or "class:note", f"{details} ")]


def cut(text: str, cells: int) -> str:
    """Shorten a text to so many cells, with an ellipsis if something is cut off."""
    if get_cwidth(text) <= cells:
        return text
    used = 0
    for place, letter in enumerate(text):
        used += get_cwidth(letter)
        if used > cells - 1:
            return f"{text[:place]}…"
    return text


def _label(session: Overview, found: Found) -> tuple[str, set[int]]:
    """The title; behind it the words of the question that were found, if they are not in it."""
    title, question = clean(session.title) or "(no title)", clean(session.question)
    in_title, _, in_question = map(set, found.letters)
    if not in_question:
        return title, in_title
    start = max(0, min(in_question) - 10)
    lead = f"{title} · {'…' if start else ''}"
    moved = {place - start + len(lead) for place in in_question}
    return lead + question[start:], in_title | moved


def _details(session: Overview, width: int, now: float) -> str:
    """Model, age and turns, as far as there is room for them, in columns."""
    if width < _WIDE:
        return f" {_short_age(session.updated, now):>4}"
    cells = _LONG_MODEL if width >= _WIDEST else _MODEL
    model = cut(clean(session.model), cells)
    model = " " * (cells - get_cwidth(model)) + model
    if width < _WIDER:
        return f" {model}  {_short_age(session.updated, now):>4}"
    age = transcript.age(session.updated, now)
    return f" {model}  {age:>14}  {counted(session.turns, 'turn'):>9}"


def _short_age(moment: float, now: float) -> str:
    """`3h`, `12mo`."""
    number, _, unit = transcript.age(moment, now).removesuffix(" ago").partition(" ")
    return "now" if number == "just" else f"{number}{'mo' if unit.startswith('mo') else unit[0]}"
