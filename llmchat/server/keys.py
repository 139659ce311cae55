"""API keys: made here, shown once, kept as hashes. A key is 256 random bits, so that one round of SHA-256 is enough against guessing."""

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from llmchat.errors import UsageError


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """sha256: of the key itself, in hex; created: seconds since 1970; end: the last characters of the key, to know it by."""

    name: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    created: int
    end: str

    @property
    def user(self) -> str:
        """Whose conversations these are: the key's alone, for another person may get the name later. No name of a key has a colon."""
        return f"key:{self.sha256[:32]}"


class Keys:
    """The keys in a file, which only its owner may read. The file is read again when it changes: a key that is taken back is refused at once."""

    def __init__(self, file: Path):
        self.file = file
        self._seen: tuple[int, int] = (-1, -1)
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        try:
            stat = self.file.stat()
        except FileNotFoundError:
            self._seen, self._keys = (-1, -1), ()
            return ()
        except OSError as error:
            raise UsageError(f"{self.file} cannot be read as keys: {error.strerror}") from error
        if (stat.st_mtime_ns, stat.st_ino) != self._seen:
            try:
                self._keys = tuple(msgspec.json.decode(self.file.read_bytes(), type=list[Key]))
            except (msgspec.MsgspecError, OSError) as error:
                raise UsageError(f"{self.file} cannot be read as keys: {error}") from error
            self._seen = (stat.st_mtime_ns, stat.st_ino)
        return self._keys

    def add(self, name: str) -> str:
        """Make a key; returns it. It is not kept anywhere."""
        if not re.fullmatch(r"[\w.@-]{1,64}", name):
            raise UsageError(
                f"`{name}` cannot name a key", "letters, digits, `.`, `_`, `-` and `@` can"
            )
        secret = f"llmchat-{secrets.token_urlsafe(32)}"
        with self._changing():
            if any(key.name == name for key in self.all()):
                raise UsageError(
                    f"there is a key `{name}` already",
                    f"`llmchat serve keys remove {name}` takes it back",
                )
            self._write((*self.all(), Key(name, _hash(secret), int(time.time()), secret[-4:])))
        return secret

    def remove(self, name: str) -> None:
        with self._changing():
            kept = tuple(key for key in self.all() if key.name != name)
            if len(kept) == len(self.all()):
                raise UsageError(
                    f"there is no key `{name}`", "`llmchat serve keys list` shows them"
                )
            self._write(kept)

    def holder(self, secret: str) -> Key | None:
        """The key, or None. It takes the same time for a wrong key as for any right one."""
        given, found = _hash(secret), None
        for key in self.all():
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change after the other: two at once would bring back a key that was removed, or lose a new one."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(
                os.open(
                    self.file.with_name(f".{self.file.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600
                ),
                "wb",
            ) as lock:
                # Some network file systems have no locks.
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise UsageError(f"{self.file} cannot be changed: {error.strerror}") from error

    def _write(self, keys: tuple[Key, ...]) -> None:
        draft = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys)))
        draft.replace(self.file)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
