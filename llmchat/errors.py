"""The errors a user can meet. Rooms raise them where the cause is known; `cli.main` alone turns one into a line and an exit code.

LlmchatError 1
├── UsageError 2            a flag, a file or a value that cannot be right
├── ModelNotFound 3         an unknown name, or a model that is not pulled
├── NotAuthorised 4         gated, or the token is missing or wrong
├── NetworkError 5          no network, a failing server, or offline mode
├── OutOfResources 6        memory or disk
├── ContextOverflow 7       a conversation that may not or cannot be trimmed to the window
├── Mismatch 8              adapter, base or format do not belong together
└── IntegrityError 9        bytes that are not what they should be
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class LlmchatError(Exception):
    """One sentence for the user, and, where there is one, what to do about it."""

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
    """A model that llmchat knows and that `pull` would bring here."""


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
    """What is allowed, as a phrase: `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """A hint that names the closest known names, or nothing when none is close."""
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(f'`{match}`' for match in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of a library's message; the exception's name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_LONGEST = 400


def shortened(line: str) -> str:
    """A message that fits on a screen: the middle of a long value that it quotes is left out."""
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} … {line[-half:]}"
