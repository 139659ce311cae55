"""Find the files below a folder, in order, without following links."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from threading import Event

from llmchat.tools.files.root import Root, Unreadable, is_closed

# Folders whose files nobody wrote.
_BORING = {"node_modules", "__pycache__", "site-packages"}
# Most files and folders that one walk looks at.
MOST_ENTRIES = 200_000


class Walk:
    """The files below a folder whose name fits a pattern, folder by folder.

    A pattern with a `/` is for the whole path. complete: whether nothing had to be left out.
    """

    def __init__(self, root: Root, start: str, pattern: str, stop: Event):
        self._root, self._start, self._stop = root, start, stop
        self._pattern = pattern.removeprefix("./").replace("**/", "*") or "*"
        self._entries = 0
        self.complete = True

    def files(self) -> Iterator[str]:
        if self._root.is_file(self._start):
            yield self._start
            return
        folders = [self._start.rstrip("/")]
        while folders and self.complete:
            folder = folders.pop()
            try:
                names, inner = self._of(folder)
            except Unreadable:
                if folder == self._start.rstrip("/"):
                    raise
                # Closed to this user, or removed meanwhile.
                continue
            folders += reversed([_joined(folder, name) for name in inner])
            yield from filter(self._fits, (_joined(folder, name) for name in names))

    def _of(self, folder: str) -> tuple[list[str], list[str]]:
        """The names of files and of folders in a folder, sorted."""
        files, folders = [], []
        with self._root.folder(folder) as opened, os.scandir(opened) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > MOST_ENTRIES or self._stop.is_set():
                    self.complete = False
                    break
                if is_closed(entry.name):
                    continue
                if entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                elif entry.is_dir(follow_symlinks=False) and entry.name not in _BORING:
                    folders.append(entry.name)
        return sorted(files), sorted(folders)

    def _fits(self, path: str) -> bool:
        whole = path if "/" in self._pattern else path.rpartition("/")[2]
        return fnmatch(whole, self._pattern)


def printable(path: str) -> str:
    """A path on one line: names may hold any character but `/` and NUL."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in path)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder not in ("", ".") else name
