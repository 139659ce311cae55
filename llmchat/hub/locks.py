"""File locks in llmchat's cache or, where its file system has none, in the temporary folder.

Some NFS and FUSE file systems have no locks. Locks in the temporary folder hold among the processes
of one machine: two machines that share such a cache must not pull the same model at once.
"""

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import OutOfResources
from llmchat.process.users import is_ours, own_uid
from llmchat.settings import World

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO)
_NO_PLACE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


@contextmanager
def held(
    name: str,
    world: World,
    waiting: Callable[[], None],
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[None]:
    """Hold the lock of a name; where another process holds it, call `waiting` and wait.

    note: called for a file system without locks. Raises OutOfResources where no lock file can be
    written.
    """
    from filelock import Timeout

    lock = _lock(name, world, note)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        yield
    finally:
        lock.release()


def is_free(name: str, world: World) -> bool:
    """Whether no process holds the lock of a name."""
    from filelock import Timeout

    lock = _lock(name, world, lambda line: None)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _lock(name: str, world: World, note: Callable[[str], None]) -> Any:
    """A working lock: in the cache where it supports locks, else in the temporary folder."""
    from filelock import FileLock

    folder = world.cache / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _has_locks(folder):
            return FileLock(folder / f"{name}.lock")
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise OutOfResources(
                f"no lock file can be written in {folder}: {error.strerror}",
                "free some space, or set XDG_CACHE_HOME to another folder",
            ) from error
        raise
    note(
        f"{folder} is on a file system without locks; do not pull the same model from two machines"
        " at once"
    )
    return FileLock(_own_folder() / f"{name}.lock")


def _has_locks(folder: Path) -> bool:
    """Whether the file system of a folder supports locks, tried on a new file."""
    try:
        import fcntl
    except ImportError:
        # Windows: its own locks work on its file systems.
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
    return True


def _own_folder() -> Path:
    """This user's folder in the temporary folder. Raises OutOfResources where it is not private."""
    folder = Path(tempfile.gettempdir()) / f"llmchat-locks-{own_uid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or not is_ours(facts) or facts.st_mode & 0o022:
        raise OutOfResources(
            f"{folder} is not private to you, so no lock can be kept there",
            "remove it, or set TMPDIR",
        )
    return folder
