"""Search the lines of files for a text or a pattern, in bounded time."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event

from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError
from llmchat.tools.files.reading import lines_of, refuse_binary
from llmchat.tools.files.root import Root, Unreadable
from llmchat.tools.files.walk import Walk, printable

MOST_MATCHES = 50
# A larger file is data, not text that somebody wrote.
MOST_BYTES = 10_000_000
# Seconds of one search.
MOST_SECONDS = 10.0
# Most characters of a line that is shown.
_SHOWN = 200

Matches = Callable[[str], bool]


def matcher(text: str, is_pattern: bool) -> Matches:
    """A test of a line: contains the text, upper and lower case alike, or matches the pattern.

    The pattern is RE2's: linear in time, with neither look-around nor back references.
    """
    if not is_pattern:
        wanted = text.casefold()
        return lambda line: wanted in line.casefold()
    import re2

    options = re2.Options()
    options.case_sensitive, options.log_errors = False, False
    try:
        pattern = re2.compile(text, options)
    except (re2.error, ValueError) as error:
        raise ToolError(f"`{excerpt(text)}` cannot be searched for: {_reason(error)}") from error
    return lambda line: pattern.search(line) is not None


def _reason(error: Exception) -> str:
    """RE2 gives its reason as bytes."""
    reason = error.args[0] if error.args else ""
    return excerpt(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason))


class Search:
    """Matching lines as `path:number: line`. complete: whether everything was searched."""

    def __init__(self, root: Root, walk: Walk, matches: Matches, stop: Event):
        self._root, self._walk, self._matches, self._stop = root, walk, matches, stop
        self._end = time.monotonic() + MOST_SECONDS
        self.complete = True

    def lines(self) -> Iterator[str]:
        for path in self._walk.files():
            if self._is_over():
                return
            # A file that was removed, is closed to this user or binary has no lines.
            with suppress(Unreadable):
                yield from self._of(path)
        self.complete = self.complete and self._walk.complete

    def _is_over(self) -> bool:
        if self._stop.is_set() or time.monotonic() > self._end:
            self.complete = False
        return not self.complete

    def _of(self, path: str) -> Iterator[str]:
        with self._root.file(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                return
            refuse_binary(file, path)
            for number, line in enumerate(lines_of(file, self._stop), 1):
                if self._is_over():
                    return
                if self._matches(line):
                    yield f"{printable(path)}:{number}: {line.strip()[:_SHOWN]}"
