"""Keep what a long run has done when Ctrl-C or an error ends it early."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from llmchat.errors import LlmchatError
from llmchat.output.progress import StepProgress


class Interruptible(Protocol):
    """The result of a long run. interrupted: Ctrl-C ended it early; error: an error did."""

    interrupted: bool
    error: LlmchatError | None


@contextmanager
def keep_results(outcome: Interruptible, progress: StepProgress) -> Iterator[None]:
    """Record an interruption or an error in the outcome instead of raising it."""
    try:
        yield
    except KeyboardInterrupt:
        outcome.interrupted = True
    except LlmchatError as error:
        outcome.error = error
    finally:
        progress.clear()
