"""The Unix socket of the user's background server, and requests over it."""

import contextlib
import http.client
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmchat.errors import LlmchatError, UsageError
from llmchat.process.users import is_ours
from llmchat.settings import World

# The longest socket address that the kernel takes; a longer one is reached through its folder.
_ADDRESS = 107


def socket_file(world: World) -> Path:
    return world.state / "serve.sock"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket that belongs to this user."""

    def __init__(self, file: Path, timeout_s: float | None = None):
        super().__init__("localhost", timeout=timeout_s)
        self._file = file

    def connect(self) -> None:
        """Raises OSError if no server listens, or if the socket belongs to another user."""
        if not hasattr(socket, "AF_UNIX"):
            raise FileNotFoundError("this system has no Unix sockets")
        facts = self._file.lstat()
        if not is_ours(facts) or not stat.S_ISSOCK(facts.st_mode):
            raise PermissionError(f"{self._file} is not a socket of yours")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            with reachable(self._file) as address:
                self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise


@contextlib.contextmanager
def reachable(file: Path) -> Iterator[str]:
    """An address of the socket `file` that is short enough for the kernel."""
    if len(os.fsencode(file)) < _ADDRESS or not hasattr(os, "O_PATH"):
        yield str(file)
        return
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{file.name}"
    finally:
        os.close(folder)


def alive(world: World) -> bool:
    """Whether this user's background server listens."""
    try:
        connection = UnixConnection(socket_file(world), 2.0)
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True


def ask(world: World, method: str, path: str, body: Any = None, timeout_s: float = 60.0) -> Any:
    """The decoded answer to a request.

    Raises UsageError if no server runs, LlmchatError with the server's message if it refuses.
    """
    connection = UnixConnection(socket_file(world), timeout_s)
    try:
        content = None if body is None else msgspec.json.encode(body)
        connection.request(
            method, path, content, {"Content-Type": "application/json"} if content else {}
        )
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read())
    except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
        raise UsageError(
            "no background server is running", "`llmchat serve --background` starts one"
        ) from error
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise LlmchatError(f"the server did not answer: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise LlmchatError(answer["error"]["message"])
    return answer
