"""The errors that a user can see, with their exit codes.

They are raised where the cause is known; `cli.main` alone turns one into a line and an exit code.

LlmchatError 1
├── UsageError 2            an invalid flag, file or value
├── ModelNotFound 3         an unknown name, or a model that is not pulled
├── NotAuthorised 4         gated, or the token is missing or wrong
├── NetworkError 5          no network, a failing server, or offline mode
├── OutOfResources 6        memory or disk
├── ContextOverflow 7       a conversation that does not fit the window
├── Mismatch 8              adapter, base and format do not match
└── IntegrityError 9        a damaged file
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class LlmchatError(Exception):
    """What happened, in one sentence, and a hint what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LlmchatError):
    exit_code = 2


class ModelNotFound(LlmchatError):
    exit_code = 3


class NotPulled(ModelNotFound):
    """A model that `llmchat pull` would download."""


class NotAuthorised(LlmchatError):
    exit_code = 4


class NetworkError(LlmchatError):
    exit_code = 5


class OutOfResources(LlmchatError):
    exit_code = 6


class ContextOverflow(LlmchatError):
    exit_code = 7


class Mismatch(LlmchatError):
    exit_code = 8


class IntegrityError(LlmchatError):
    exit_code = 9


def any_of(names: "Iterable[str]") -> str:
    """Allowed values as a phrase: `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(name: str, known: "list[str] | tuple[str, ...]", mark: str = "") -> str:
    """A hint with the closest known names, each after `mark`; empty if none is close."""
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(f'`{mark}{match}`' for match in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type's name without one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_LONGEST = 400


def shortened(line: str) -> str:
    """A message that fits on a screen, without the middle of a long value."""
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} … {line[-half:]}"
