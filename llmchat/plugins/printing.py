"""What plugins print while they are imported and their hooks run goes to stderr.

stdout is for answers, and programs read them from there.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class _Redirection:
    """sys.stdout while at least one thread is in a block; the last one restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._stdout: TextIO | None = None

    def begin(self) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._stdout, sys.stdout = sys.stdout, sys.stderr

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0 and self._stdout is not None:
                sys.stdout = self._stdout


# The streams belong to the process, and so does their redirection.
_redirection = _Redirection()


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Send what is printed in the block to stderr."""
    _redirection.begin()
    try:
        yield
    finally:
        _redirection.end()
