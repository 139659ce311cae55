"""Files that a message mentions as `@notes.txt`; they are attached to it."""

import re
from collections.abc import Iterable
from pathlib import Path

from llmchat.ui.state import paths_starting_with

# At the start of a word, so that me@example.org is text; quotes allow a path with spaces.
_MENTION = re.compile(r"(?<!\S)@(?:\"([^\"\n]+)\"|(\S+))")
_BEGUN = re.compile(r"(?<!\S)@\"?([^\"\s]*)$")
_AFTER = ".,;:!?)]}'"


def mentioned(text: str) -> list[str]:
    """The paths of the files mentioned in a text, in order, each once.

    A word that is not the name of a file is text.
    """
    found: dict[str, None] = {}
    for quoted, word in _MENTION.findall(text):
        name = next((one for one in _spellings(quoted, word) if _is_file(one)), None)
        if name:
            found[name] = None
    return list(found)


def completions(line: str) -> Iterable[tuple[str, int]]:
    """Complete a mention at the end of `line`: paths, each with the characters it replaces."""
    if begun := _BEGUN.search(line):
        for path in paths_starting_with(begun[1]):
            yield path, len(begun[1])


def _spellings(quoted: str, word: str) -> list[str]:
    """The possible paths of a mention: a sentence's punctuation may follow it."""
    return [quoted] if quoted else [word, word.rstrip(_AFTER)]


def _is_file(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False
