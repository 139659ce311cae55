"""How far a long run is, on stderr: one line that is written over on a terminal, one line a model elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from llmchat.errors import LlmchatError
from llmchat.settings import World


class Outcome(Protocol):
    """What a long run leaves behind. interrupted: Ctrl-C; error: what ended it before its time."""

    interrupted: bool
    error: LlmchatError | None


class Progress:
    """Counts `total` steps over all models; the time left is told from those that were taken, not from those that were kept from before."""

    def __init__(self, world: World, total: int, *, quiet: bool = False):
        self._stream = world.stderr
        self._quiet = quiet
        self._live = world.stderr.isatty() and world.env.get("TERM") != "dumb"
        self._left = total
        self._taken, self._seconds = 0, 0.0

    def begin(self, label: str, steps: int, kept: int = 0) -> None:
        """A model begins; `kept` of its steps need not be taken."""
        self.clear()
        self._label = label
        self._left -= kept
        if not self._quiet and not self._live:
            print(
                f"{label}: {_counted(steps - kept)}{f', {kept} kept from before' if kept else ''}",
                file=self._stream,
                flush=True,
            )

    def expect(self, steps: int) -> None:
        """There are more steps than was known."""
        self._left += steps

    def started(self, what: str) -> None:
        self._since = time.perf_counter()
        if self._live and not self._quiet:
            left = (
                f", about {_duration(self._left * self._seconds / self._taken)}"
                if self._taken
                else ""
            )
            print(
                f"\r\033[K{self._label}  {what}  {self._left} to go{left}",
                end="",
                file=self._stream,
                flush=True,
            )

    def done(self) -> None:
        self._left -= 1
        self._taken += 1
        self._seconds += time.perf_counter() - self._since

    @contextmanager
    def into(self, outcome: Outcome) -> Iterator[None]:
        """An interruption or an error ends the run, and what was done stays: the outcome says what happened."""
        try:
            yield
        except KeyboardInterrupt:
            outcome.interrupted = True
        except LlmchatError as error:
            outcome.error = error
        finally:
            self.clear()

    def clear(self) -> None:
        if self._live and not self._quiet:
            print("\r\033[K", end="", file=self._stream, flush=True)


def _counted(steps: int) -> str:
    return f"{steps} item{'' if steps == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{max(round(seconds), 1)} s"
        if seconds < 90
        else f"{minutes} min"
        if minutes < 90
        else f"{seconds / 3600:.1f} h"
    )
