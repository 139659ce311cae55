"""API keys: created here, shown once, stored as hashes.

A key is 256 random bits, so one round of SHA-256 is enough against guessing.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from llmchat.errors import UsageError


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """sha256: of the key, in hex; created: seconds since 1970; end: the last characters of the key,
    to recognise it by."""

    name: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    created: int
    end: str

    @property
    def user(self) -> str:
        """The owner of conversations. It depends on the key, not on its name: someone else may get
        the name later. Names cannot contain a colon, so the two never collide."""
        return f"key:{self.sha256[:32]}"


class Keys:
    """The keys in a file that only its owner can read.

    The file is read again when it changes, so a removed key is refused immediately.
    """

    def __init__(self, file: Path, now: Callable[[], float] = time.time):
        self.file = file
        self._now = now
        self._file_state: tuple[int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        try:
            stat = self.file.stat()
        except FileNotFoundError:
            self._file_state, self._keys = None, ()
            return ()
        except OSError as error:
            raise UsageError(f"cannot read the keys in {self.file}: {error.strerror}") from error
        state = stat.st_mtime_ns, stat.st_ino
        if state != self._file_state:
            try:
                self._keys = tuple(msgspec.json.decode(self.file.read_bytes(), type=list[Key]))
            except (msgspec.MsgspecError, OSError) as error:
                raise UsageError(f"cannot read the keys in {self.file}: {error}") from error
            self._file_state = state
        return self._keys

    def add(self, name: str) -> str:
        """Create a key and return it. Only its hash is stored."""
        if not re.fullmatch(r"[\w.@-]{1,64}", name):
            hint = "use up to 64 letters, digits and `.`, `_`, `-`, `@`"
            raise UsageError(f"invalid key name `{name}`", hint)
        secret = f"llmchat-{secrets.token_urlsafe(32)}"
        with self._locked():
            if any(key.name == name for key in self.all()):
                hint = f"`llmchat serve keys remove {name}` removes it"
                raise UsageError(f"a key named `{name}` already exists", hint)
            self._write((*self.all(), Key(name, _hash(secret), int(self._now()), secret[-4:])))
        return secret

    def remove(self, name: str) -> None:
        with self._locked():
            kept = tuple(key for key in self.all() if key.name != name)
            if len(kept) == len(self.all()):
                raise UsageError(f"no key named `{name}`", "`llmchat serve keys list` lists them")
            self._write(kept)

    def holder(self, secret: str) -> Key | None:
        """The key with this secret, or None. The time it takes does not depend on the secret."""
        given, found = _hash(secret), None
        for key in self.all():
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two changes at once could restore a removed key or lose a new one."""
        lock_file = self.file.with_name(f".{self.file.name}.lock")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(lock_file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
                # Some network file systems do not support locks.
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise UsageError(f"cannot change {self.file}: {error.strerror}") from error

    def _write(self, keys: tuple[Key, ...]) -> None:
        draft = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys)))
        draft.replace(self.file)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
