"""Files and folders that are written under another name until they are whole.

A process that is killed leaves its unfinished file or folder. Whoever writes the same target next
removes it: it is locked only while its process lives.
"""

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmchat.process.signals import orderly_end

_MARK = ".unfinished"
_RANDOM_BYTES = 4


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, which takes its place when the block succeeds."""
    temporary = _beside(target)
    temporary.touch(exist_ok=False)
    with _held(temporary):
        yield temporary
        temporary.replace(target)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, private to its owner, which is removed in the end if it is
    still there.
    """
    temporary = _beside(target)
    temporary.mkdir(mode=0o700)
    with _held(temporary):
        yield temporary


def replace(fresh: Path, target: Path) -> None:
    """Put a folder in the place of another, which stays whole until then."""
    if not os.path.lexists(target):
        fresh.rename(target)
        return
    with folder(target) as old:
        earlier = old / target.name
        target.rename(earlier)
        try:
            fresh.rename(target)
        except OSError:
            earlier.rename(target)
            raise


def _beside(target: Path) -> Path:
    """A free name beside `target`, whose leftovers are removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    return target.with_name(f".{target.name}-{secrets.token_hex(_RANDOM_BYTES)}{_MARK}")


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock what is written, and remove it in the end, also when SIGTERM or SIGHUP ends it."""
    lock = _lock(path)
    with orderly_end():
        try:
            yield
        finally:
            _remove(path)
            if lock is not None:
                os.close(lock)


def _remove_leftovers(target: Path) -> None:
    """Remove what dead processes left of the same target."""
    pattern = f".{glob.escape(target.name)}-{'[0-9a-f]' * 2 * _RANDOM_BYTES}{_MARK}"
    for path in target.parent.glob(pattern):
        lock = _lock(path)
        if lock is not None:
            _remove(path)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a file or folder; None if another process holds it, and
    where there are no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
