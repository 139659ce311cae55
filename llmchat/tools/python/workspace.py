"""The folder in which foreign code runs: empty at first, removed with all that is left in it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from secrets import token_hex

# Most files and folders in it.
_MOST_ENTRIES = 10_000
_FAR_TOO_LARGE = 1 << 62


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder that is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="llmchat-python-")).resolve()
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder of any depth, whatever the permissions in it; links are not followed.

    Each round removes one level and moves the next one up: shutil.rmtree fails on folders that are
    nested deeply, or whose path is too long.
    """
    names = (folder / f"{token_hex(8)}-{number}" for number in count())
    folder.chmod(0o700)
    while inner := _without_files(folder):
        for one in inner:
            one.chmod(0o700)
            for next_one in _without_files(one):
                next_one.chmod(0o700)
                next_one.rename(next(names))
            one.rmdir()
    folder.rmdir()


def _without_files(folder: Path) -> list[Path]:
    """Remove what is not a folder from a folder; returns the folders in it."""
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
    return [Path(entry.path) for entry in listed if entry.is_dir(follow_symlinks=False)]


def size(folder: Path) -> int:
    """Bytes on disk below a folder; beyond any limit where they cannot be counted quickly."""
    total, seen, waiting = 0, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    seen += 1
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            # Removed meanwhile.
            continue
        except OSError:
            return _FAR_TOO_LARGE
        if seen > _MOST_ENTRIES:
            return _FAR_TOO_LARGE
    return total
