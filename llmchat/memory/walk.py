"""Find the files below a folder, in order, without following links."""

import os
from collections.abc import Iterator
from pathlib import Path

from llmchat.errors import UsageError
from llmchat.memory.ignored import Rules, rules_above

MOST_FILES = 200_000
# Folders whose files nobody wrote.
_BORING = {"node_modules", "__pycache__", "site-packages"}


def files_below(root: Path, *, gitignore: bool = True) -> list[Path]:
    """The plain files below a folder, or the file itself; hidden names are left out.

    gitignore: leave out what `.gitignore` files name, those of the folder and of its repository.
    Links below the folder are not followed, so none can lead in a circle. Raises UsageError for a
    path that does not exist, and for more than 200,000 files.
    """
    try:
        if root.is_file():
            return [root]
        if not root.is_dir():
            kind = "not a file or folder" if root.exists() else "not there"
            raise UsageError(f"{root} is {kind}")
        return list(_limited(root, rules_above(root) if gitignore else None))
    except OSError as error:
        raise UsageError(f"{root} cannot be read: {error.strerror}") from error


def _limited(root: Path, rules: Rules | None) -> Iterator[Path]:
    for number, path in enumerate(_walk(root, rules)):
        if number == MOST_FILES:
            raise UsageError(
                f"{root} holds more than {MOST_FILES:,} files", "add some of its folders instead"
            )
        yield path


def _walk(root: Path, rules: Rules | None) -> Iterator[Path]:
    """rules: of the folders above; None to leave out nothing."""
    # Rules count from whole paths; the paths that are given stay as the user wrote them.
    folders = [(root, root.resolve(), rules)]
    while folders:
        folder, place, rules = folders.pop()
        rules = rules.below(place) if rules else None
        files, inner = _entries(folder, must_open=folder == root)
        if rules and rules.patterns:
            files = [one for one in files if not rules.leave_out(f"{place}/{one}", is_folder=False)]
            inner = [one for one in inner if not rules.leave_out(f"{place}/{one}", is_folder=True)]
        yield from (folder / name for name in files)
        folders += [(folder / name, place / name, rules) for name in reversed(inner)]


def _entries(folder: Path, must_open: bool) -> tuple[list[str], list[str]]:
    """The names of the files and folders in a folder; none if it is closed to this user."""
    files, inner = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                elif entry.is_dir(follow_symlinks=False) and entry.name not in _BORING:
                    inner.append(entry.name)
    except OSError:
        if must_open:
            raise
    return sorted(files), sorted(inner)


def is_gone(path: Path) -> bool:
    """Whether a path does not exist; one that this user may not look at is not gone."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
