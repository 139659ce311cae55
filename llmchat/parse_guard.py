"""Guards the reading of untrusted files: any parser error becomes one line that names the file."""

import errno
import os
import struct
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError

_LONGEST = 160
# All threads share stderr.
_STDERR_LOCK = threading.RLock()
_HINT = "LLMCHAT_TRACEBACK=1 shows where"


@contextmanager
def reading(
    what: str | Path, kind: type[LlmchatError] = IntegrityError, hint: str = _HINT
) -> Iterator[None]:
    """Turn any error while `what` is read into `kind`, including a panic of a Rust library.

    Errors of llmchat and interrupts pass through. In nested guards the innermost one names the
    file.
    """
    try:
        yield
    except LlmchatError:
        raise
    except MemoryError as error:
        raise OutOfResources(f"memory ran out while {_name(what)} was read") from error
    except BaseException as error:
        if _passes(error):
            raise
        raise kind(f"{_name(what)} cannot be read: {reason(error)}", hint) from error


@contextmanager
def silenced() -> Iterator[None]:
    """Hold back what the process writes to stderr, and write it only if nothing is raised.

    A Rust library prints a panic there before it raises.
    """
    import tempfile

    with _STDERR_LOCK, tempfile.TemporaryFile() as kept:
        real = os.dup(2)
        try:
            os.dup2(kept.fileno(), 2)
            yield
            kept.seek(0)
            os.write(real, kept.read())
        finally:
            os.dup2(real, 2)
            os.close(real)


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises FileNotFoundError, or UsageError for invalid TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {reason(error)}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def reason(error: BaseException) -> str:
    """An error as one short line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"there is no `{shown(str(error.args[0]))}` in it"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, struct.error):
        return "it ends too early, or is damaged"
    text = shown(str(error))
    if _is_panic(error):
        return f"its parser stopped ({text})" if text else "its parser stopped"
    return (
        text if isinstance(error, ValueError) and text else f"{type(error).__name__} {text}".strip()
    )


def _passes(error: BaseException) -> bool:
    """Whether an error is not about the file: an interrupt, the end of the program, a full disk."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return not isinstance(error, Exception) and not _is_panic(error)


def _is_panic(error: BaseException) -> bool:
    # pyo3 creates the class in every library, as a BaseException: only its name identifies it.
    return type(error).__name__ == "PanicException"


def shown(text: str) -> str:
    """The first line of untrusted text, shortened, without control characters."""
    line = " ".join((text.strip().splitlines() or [""])[0].split())
    printable = "".join(character if character.isprintable() else "�" for character in line)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"


def _name(what: str | Path) -> str:
    return what.name if isinstance(what, Path) else what
