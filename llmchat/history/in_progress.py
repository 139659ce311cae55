"""Show other processes which questions are being answered now: one locked file a question.

The system releases a lock when its process ends, however it ends, so a question never counts as
being answered by a process that died.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows has other locks; without these no question counts as being answered.
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

_FOLDER = "answering"


class AnswerLock:
    """The lock of one question of the history at `path`, held until `release`.

    Does nothing without a path or on a file system without locks.
    """

    def __init__(self, path: Path | None, question: int):
        self._file: Path | None = None
        if path is None or not HAS_LOCKS:
            return
        try:
            folder = path.parent / _FOLDER
            folder.mkdir(mode=0o700, exist_ok=True)
            # The file stays open for as long as the lock is held.
            self._held = open(folder / str(question), "wb")  # noqa: SIM115
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Without the lock other processes may branch after the question instead of before.
            return
        self._file = folder / str(question)

    def release(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._held.close()
            self._file = None


def is_answered_now(path: Path | None, question: int) -> bool:
    """Whether a process is answering a question; this process counts as well."""
    if path is None or not HAS_LOCKS:
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
        # The process that made the file was killed.
        with contextlib.suppress(OSError):
            file.unlink()
        return False
    finally:
        os.close(descriptor)
