"""The guard at every door where files come in: whatever a parser raises becomes the file's name and one line."""

import errno
import os
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError

_LONGEST = 160
# stderr is one for all threads.
_TAKEN = threading.RLock()
_HINT = "LLMCHAT_TRACEBACK=1 shows where"


@contextmanager
def reading(
    what: str | Path, kind: type[LlmchatError] = IntegrityError, hint: str = _HINT
) -> Iterator[None]:
    """Raise `kind`, naming `what`, for any error that reading it raises, a panic of a Rust library included.

    Errors of ours pass through, and so do interrupts. Guards may be nested: the innermost one names the file.
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
    """Hold back what reaches stderr, past Python too: a Rust library tells of a panic there before it raises. It is written if nothing is raised."""
    import tempfile

    with _TAKEN, tempfile.TemporaryFile() as kept:
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
    """The table in a file. Raises FileNotFoundError where there is none, UsageError for one that is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {reason(error)}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def reason(error: BaseException) -> str:
    """What went wrong, in one short line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"there is no `{shown(str(error.args[0]))}` in it"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = shown(str(error))
    if _is_panic(error):
        return f"its parser stopped ({text})" if text else "its parser stopped"
    return (
        text if isinstance(error, ValueError) and text else f"{type(error).__name__} {text}".strip()
    )


def _passes(error: BaseException) -> bool:
    """Errors that say nothing about the file: interrupts, the end of the program, a full disk."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return not isinstance(error, Exception) and not _is_panic(error)


def _is_panic(error: BaseException) -> bool:
    # pyo3 makes the class anew in every library, and a BaseException of it, so it can only be told by its name.
    return type(error).__name__ == "PanicException"


def shown(text: str) -> str:
    """The first line of a text out of a file, short and without what a terminal would obey."""
    line = " ".join((text.strip().splitlines() or [""])[0].split())
    printable = "".join(character if character.isprintable() else "�" for character in line)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"


def _name(what: str | Path) -> str:
    return what.name if isinstance(what, Path) else what
