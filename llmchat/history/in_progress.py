"""Which questions are being answered right now, for other processes to see: a locked file for each, beside the history.

The system releases a lock when its process ends, however it ends, so a question is never taken for answered by a process that died.
"""

import contextlib
import fcntl
import os
from pathlib import Path

_FOLDER = "answering"


class Answering:
    """The lock of one question of the history at `path`, held until `release`. Without a path, or locks, it does nothing."""

    def __init__(self, path: Path | None, question: int):
        self._file: Path | None = None
        if path is None:
            return
        try:
            folder = path.parent / _FOLDER
            folder.mkdir(mode=0o700, exist_ok=True)
            self._held = open(folder / str(question), "wb")  # noqa: SIM115 (open for as long as the lock is held)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # A file system without locks: others cannot see it, and each answer still finds its question.
            return
        self._file = folder / str(question)

    def release(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._held.close()
            self._file = None


def is_answered_now(path: Path | None, question: int) -> bool:
    """Whether a process, this one among them, is answering a question."""
    if path is None:
        return False
    file = path.parent / _FOLDER / str(question)
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        # Left by a process that was killed.
        with contextlib.suppress(OSError):
            file.unlink()
        return False
    finally:
        os.close(descriptor)
