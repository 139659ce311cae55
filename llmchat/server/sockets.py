"""The sockets that a server listens on: TCP for clients, and a Unix socket for its own user.

uvicorn can bind both, but makes the Unix socket writable for everyone, and exits with a log line
where this raises UsageError.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from llmchat.background.client import alive, reachable, socket_file
from llmchat.errors import UsageError
from llmchat.server.serve_options import ServeOptions
from llmchat.settings import World, private_folder


@contextlib.contextmanager
def listening(world: World, options: ServeOptions) -> Iterator[list[socket.socket]]:
    """The TCP socket, and the Unix socket unless another server of this user already has it."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_tcp(options))]
        with _locked(socket_file(world)):
            if not alive(world):
                sockets.append(stack.enter_context(_unix(socket_file(world))))
        yield sockets


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """A lock, so that of several servers that start together only one takes the socket."""
    private_folder(file.parent)
    with open(os.open(file.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        # Some network file systems do not support locks.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tcp(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        # Clients can connect from now on; they wait until the models are loaded.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            "choose another port with --port",
        ) from error
    return listener


@contextlib.contextmanager
def _unix(file: Path) -> Iterator[socket.socket]:
    """A Unix socket that only this user can open; it is removed at the end."""
    private_folder(file.parent)
    file.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with reachable(file) as address:
            listener.bind(address)
    finally:
        os.umask(before)
    listener.listen(128)
    inode = file.stat().st_ino
    try:
        yield listener
    finally:
        listener.close()
        # Another server may have replaced the file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_ino == inode:
                file.unlink()
