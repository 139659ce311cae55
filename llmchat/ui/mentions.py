"""Files named inside a message, `@notes.txt`: they go with it as material."""

import re
from collections.abc import Iterable
from pathlib import Path

from llmchat.ui.state import paths_starting_with

# At the start of a word; quotes hold a path with spaces. An address such as me@example.org is no mention.
_MENTION = re.compile(r"(?<!\S)@(?:\"([^\"\n]+)\"|(\S+))")
_BEGUN = re.compile(r"(?<!\S)@\"?([^\"\s]*)$")
_AFTER = ".,;:!?)]}'"


def mentioned(text: str) -> list[str]:
    """The paths of files that are mentioned, in order, each once. A word that names no file is text."""
    found: dict[str, None] = {}
    for quoted, word in _MENTION.findall(text):
        name = next((one for one in _spellings(quoted, word) if _is_file(one)), None)
        if name:
            found[name] = None
    return list(found)


def completions(line: str) -> Iterable[tuple[str, int]]:
    """Paths for a mention that is being typed at the end of `line`, each with the characters it replaces."""
    if begun := _BEGUN.search(line):
        for path in paths_starting_with(begun[1]):
            yield path, len(begun[1])


def _spellings(quoted: str, word: str) -> list[str]:
    """A word may be followed by the punctuation of its sentence."""
    return [quoted] if quoted else [word, word.rstrip(_AFTER)]


def _is_file(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False
