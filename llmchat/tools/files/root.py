"""Open files and folders below a root folder, and nowhere else.

Every part of a path is opened relative to the folder before it and without following links; links
are resolved here, one part at a time. So neither `..` nor a link, nor one that is swapped in
between, leads out of the root. Hidden names and those of keys are closed to models, on the way of a
link too, and so is everything that is not a plain file or a folder.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import translate
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from llmchat.errors import UsageError, did_you_mean
from llmchat.output.terminal_text import excerpt
from llmchat.tools import ToolError

# Hidden files hold tokens (.env, .netrc, .ssh, .git/config); these do not.
_OPEN = {
    ".dockerignore", ".editorconfig", ".env.example", ".gitattributes", ".github", ".gitignore",
    ".gitlab-ci.yml", ".gitmodules", ".pre-commit-config.yaml", ".readthedocs.yaml",
}  # fmt: skip
_SECRET_NAMES = (
    "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.ovpn",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "credentials", "credentials.json",
)  # fmt: skip
_SECRET = re.compile("|".join(translate(name) for name in _SECRET_NAMES))
_MOST_LINKS = 40
_DEEPEST = 100
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe that is swapped in would block without O_NONBLOCK.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def is_closed(name: str) -> bool:
    """Whether models may not see a file or folder of this name."""
    name = name.lower()
    hidden = name.startswith(".") and name not in _OPEN
    return hidden or _SECRET.match(name) is not None


class Unreadable(ToolError):
    """A path that is closed to models, or that the system cannot open."""


class Root:
    """A folder that tools may read."""

    def __init__(self, path: Path):
        if not path.is_dir():
            raise UsageError(f"there is no folder `{path}`", "name one with `--root`")
        self.path = path.resolve()

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """A plain file, opened for reading. Raises Unreadable."""
        with self._place(name) as place:
            kind = os.fstat(place.fds[-1]).st_mode
            if stat.S_ISDIR(kind):
                raise Unreadable(f"`{excerpt(name)}` is a folder; files_list lists it")
            if not stat.S_ISREG(kind):
                raise _not_plain(name)
            opened = os.open(place.names[-1], _READ, dir_fd=place.fds[-2])
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise _not_plain(name)
                yield file

    @contextmanager
    def folder(self, name: str) -> Iterator[int]:
        """A descriptor of a folder, for os.scandir. Raises Unreadable."""
        with self._place(name) as place, _listable(place.fds[-1]) as opened:
            yield opened

    def is_file(self, name: str) -> bool:
        """Whether a path is a plain file. Raises Unreadable."""
        with self._place(name) as place:
            return stat.S_ISREG(os.fstat(place.fds[-1]).st_mode)

    @contextmanager
    def _place(self, name: str) -> Iterator["_Place"]:
        place = _Place(self.path)
        try:
            place.go(self._below(name))
            yield place
        except FileNotFoundError:
            raise Unreadable(f"there is no `{excerpt(name)}`{place.near()}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Unreadable(f"`{excerpt(name)}` cannot be opened: {reason}") from error
        finally:
            place.close()

    def _below(self, name: str) -> str:
        """A path relative to the root. Raises Unreadable for an absolute path elsewhere."""
        if not name.startswith(("/", "~")):
            return name
        try:
            return str(Path(os.path.normpath(name)).relative_to(self.path))
        except ValueError:
            raise _outside(name) from None


class _Place:
    """The folders from the root to a place, each one open; names: how they are called below it."""

    def __init__(self, root: Path):
        self.root = root
        self.fds: list[int] = []
        self.names: list[str] = []
        self.wanted = ""

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def go(self, path: str) -> None:
        """Open every part of a path. Raises Unreadable and OSError."""
        self.fds.append(os.open(self.root, _PLACE | os.O_DIRECTORY))
        parts, links = deque(path.split("/")), 0
        while parts:
            target = self._step(parts.popleft())
            if target is not None:
                links += 1
                parts.extendleft(reversed(self._link(target, path).split("/")))
            if links > _MOST_LINKS or len(self.fds) > _DEEPEST:
                raise Unreadable(f"`{excerpt(path)}` is nested too deeply")

    def _step(self, part: str) -> str | None:
        """Open one part; returns the target of a link instead."""
        if part in ("", "."):
            return None
        if part == "..":
            self._up()
            return None
        if is_closed(part):
            raise Unreadable(
                f"`{excerpt(part)}` is closed to models: it is hidden or may be secret"
            )
        self.wanted = part
        opened = os.open(part, _PLACE, dir_fd=self.fds[-1])
        if stat.S_ISLNK(os.fstat(opened).st_mode):
            os.close(opened)
            return os.readlink(part, dir_fd=self.fds[-1])
        self.fds.append(opened)
        self.names.append(part)
        return None

    def _up(self) -> None:
        if not self.names:
            raise _outside("..")
        os.close(self.fds.pop())
        self.names.pop()

    def _link(self, target: str, path: str) -> str:
        """The target of a link, from the folder where we are or, if it is absolute, the root."""
        if not target.startswith("/"):
            return target
        try:
            below = str(Path(os.path.normpath(target)).relative_to(self.root))
        except ValueError:
            raise _outside(path) from None
        while self.names:
            self._up()
        return below

    def near(self) -> str:
        """A hint with names like the one that is missing."""
        if not self.fds:
            return ""
        with _listable(self.fds[-1]) as opened, os.scandir(opened) as entries:
            names = [entry.name for entry in islice(entries, 5000)]
        visible = [name for name in names if name.isprintable() and not is_closed(name)]
        hint = did_you_mean(self.wanted, visible)
        return f"; {hint}" if hint else ""


@contextmanager
def _listable(place: int) -> Iterator[int]:
    """A folder that was opened as a place, opened for os.scandir."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    try:
        yield opened
    finally:
        os.close(opened)


def _outside(name: str) -> Unreadable:
    return Unreadable(f"`{excerpt(name)}` is outside the folder that may be read")


def _not_plain(name: str) -> Unreadable:
    return Unreadable(f"`{excerpt(name)}` is not a plain file")
