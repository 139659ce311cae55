"""Files that users of the web page add to their chats: read once, kept as text.

A file belongs to one user and one chat. Its id says which chat; who asks is the caller's concern.
"""

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.memory.readers import Document, read_document
from llmchat.server.errors import Refusal
from llmchat.settings import private_file, private_folder

MAX_FILES = 20
# Characters of all files of a chat: every request of the chat reads them.
MAX_CHARACTERS = 20_000_000
# Bytes of all files of a user, with their indexes.
MAX_BYTES = 256_000_000
_LONGEST_NAME = 120
_ID = re.compile(r"file-([0-9a-f]{24})-[0-9a-f]{16}")
# Control characters, and those that turn text around: they could disguise a name.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


class NoFile(Refusal):
    """The file is not there, or not this user's."""

    status = 404

    def __init__(self, id: str):
        message = f"the file `{id[:80]}` is not on the server (any more); add it to the chat again"
        super().__init__(message, param="messages", code="file_not_found")


class FilesFull(Refusal):
    """The user or the chat has too many files."""

    status = 413

    def __init__(self, message: str):
        super().__init__(message, param="file", code="files_full")


class Unreadable(Refusal):
    """The file has no text that can be read."""

    status = 400

    def __init__(self, error: UsageError):
        hint = f"; {error.hint}" if error.hint else ""
        super().__init__(f"{error.message}{hint}", param="file", code="unreadable_file")


class ChatFile(Struct, frozen=True):
    """name: unique in its chat. characters: of its text."""

    id: str
    name: str
    characters: int
    bytes: int


class _Head(Struct, frozen=True):
    """What a kept file begins with."""

    file: ChatFile


class _Kept(_Head, frozen=True):
    document: Document


class ChatFiles:
    """The files below `root`, in a folder for each user and chat; any thread may use it."""

    def __init__(self, root: Path, *, max_bytes: int = MAX_BYTES):
        self._root, self._max_bytes = root, max_bytes
        self._lock = threading.Lock()

    def add(self, user: str, chat: str, name: str, data: bytes) -> ChatFile:
        """Read a file and keep its text. Raises Unreadable and FilesFull."""
        shown = plain_name(name)
        try:
            document = read_document(data, shown)
            if not document.text.strip():
                raise UsageError(f"{shown} has no text")
        except UsageError as error:
            raise Unreadable(error) from error
        with self._lock:
            return self._keep(user, chat, shown, document, len(data))

    def document(self, user: str, id: str) -> Document:
        """The text of a file; its source is the file's name. Raises NoFile."""
        path = self._path(user, id)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Kept).document
        except (OSError, msgspec.MsgspecError):
            raise NoFile(id) from None

    def index_path(self, user: str, id: str) -> Path:
        """The index of the chat that a file belongs to."""
        return self._path(user, id).with_name("index.sqlite")

    def remove(self, user: str, id: str) -> str:
        """Forget a file; returns its name. Raises NoFile."""
        name = self.document(user, id).source
        self._path(user, id).unlink(missing_ok=True)
        return name

    def forget(self, user: str, chat: str) -> None:
        """Forget all files of a chat, and their index."""
        with self._lock:
            shutil.rmtree(self._folder(user, chat), ignore_errors=True)

    def sweep(self, wanted: Callable[[str, str], bool], before: float) -> None:
        """Forget the files of chats that are not wanted, if none is newer than `before`."""
        for folder in self._root.glob("*/*"):
            user = folder.parent.name.replace("-", ":", 1)
            if folder.stat().st_mtime < before and not wanted(user, folder.name):
                self.forget(user, folder.name)

    def _keep(self, user: str, chat: str, name: str, document: Document, size: int) -> ChatFile:
        kept = list(self._files(self._folder(user, chat)))
        self._check_room(user, kept, len(document.text))
        unique = _unique(name, {one.file.name for one in kept})
        id = f"file-{chat}-{secrets.token_hex(8)}"
        file = ChatFile(id, unique, len(document.text), size)
        content = _Kept(file, msgspec.structs.replace(document, source=unique))
        path = self._path(user, id)
        private_folder(path.parent)
        private_file(path)
        path.write_bytes(msgspec.json.encode(content))
        return file

    def _check_room(self, user: str, kept: list[_Head], characters: int) -> None:
        if len(kept) >= MAX_FILES:
            raise FilesFull(f"a chat may have at most {MAX_FILES} files")
        if sum(one.file.characters for one in kept) + characters > MAX_CHARACTERS:
            raise FilesFull(
                f"the files of a chat may have {MAX_CHARACTERS:,} characters together;"
                " `llmchat index add` and `serve --docs` search any amount"
            )
        used = sum(path.stat().st_size for path in self._user(user).rglob("*") if path.is_file())
        if used > self._max_bytes:
            raise FilesFull(
                f"your files take more than {self._max_bytes / 1e6:,.0f} MB;"
                " delete chats that have files"
            )

    def _files(self, folder: Path) -> Iterator[_Head]:
        for path in folder.glob("file-*.json"):
            yield msgspec.json.decode(path.read_bytes(), type=_Head)

    def _user(self, user: str) -> Path:
        return self._root / user.replace(":", "-")

    def _folder(self, user: str, chat: str) -> Path:
        return self._user(user) / chat

    def _path(self, user: str, id: str) -> Path:
        """Raises NoFile for what is not an id."""
        match = _ID.fullmatch(id)
        if not match:
            raise NoFile(id)
        return self._folder(user, match[1]) / f"{id}.json"


def plain_name(name: str) -> str:
    """The last part of a path, as far as it can be shown in a line."""
    last = _UNSEEN.sub("", name).replace("\\", "/").rpartition("/")[2].strip() or "file.txt"
    stem, dot, ending = last.rpartition(".")
    most = _LONGEST_NAME - len(dot + ending)
    return f"{stem[:most]}{dot}{ending}" if most > 0 else last[:_LONGEST_NAME]


def _unique(name: str, taken: set[str]) -> str:
    stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
    number = 2
    while name in taken:
        name, number = f"{stem} ({number}){dot}{ending}", number + 1
    return name
