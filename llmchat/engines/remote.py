"""The model of the user's own server, over its Unix socket: an engine that loads nothing. The prompt is rendered here, as for any engine.

server/private.py is the other end. Imports no heavy library: a one-shot is to answer at once.
"""

import http.client
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llmchat import __version__
from llmchat.daemon import UnixConnection, socket_file
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.errors import LlmchatError, NetworkError
from llmchat.prompt import Prompt
from llmchat.settings import Options, World

# Two programs of different versions do not talk to each other.
PROTOCOL = f"1 {__version__}"
# A server that is there answers at once; only loading a model takes longer.
_CONNECT_S = 1.0
_ANSWER_S = 900.0

Value = TypeVar("Value")


class Asked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """options: what names and loads the model; made_by: what it must then be made of, see models.provenance."""

    protocol: str = PROTOCOL
    options: Options
    made_by: dict[str, Any]


class Count(Asked, frozen=True):
    texts: tuple[str, ...]


class Encode(Asked, frozen=True):
    prompts: tuple[Prompt, ...]


class Stream(Asked, frozen=True):
    prompt: Prompt
    sampling: Sampling


class Facts(Struct, frozen=True):
    context: int
    describe: str


class Line(Struct, frozen=True, omit_defaults=True):
    """One event of an answer."""

    chunk: Chunk | None = None
    finish: Finish | None = None


class RemoteEngine:
    """A model that a server of this user has in memory, or loads."""

    load_s = 0.0
    served = True

    def __init__(self, world: World, options: Options, made_by: Mapping[str, Any]):
        """Raises OSError where no server listens, LlmchatError where it cannot stand in for this model."""
        self._options = _of_the_model(options)
        self._made_by = dict(made_by)
        self._counts: dict[str, int] = {}
        self._connection = UnixConnection(socket_file(world), _CONNECT_S)
        self._connection.connect()
        self._connection.sock.settimeout(_ANSWER_S)
        facts = self._ask("open", Asked(options=self._options, made_by=self._made_by), Facts)
        self.context, self._name = facts.context, facts.describe

    def describe(self) -> str:
        return f"{self._name}, served"

    def count(self, text: str) -> int:
        if text not in self._counts:
            asked = Count(options=self._options, made_by=self._made_by, texts=(text,))
            self._counts[text] = self._ask("count", asked, list[int])[0]
        return self._counts[text]

    def encode(self, prompt: Prompt) -> list[int]:
        return self._ask("encode", Encode(options=self._options, made_by=self._made_by, prompts=(prompt,)), list[list[int]])[0]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        """Closing it early closes the connection, which ends the work of the server."""
        asked = Stream(options=self._options, made_by=self._made_by, prompt=prompt, sampling=sampling)
        response = self._post("stream", asked)
        ended = False
        try:
            while line := response.readline():
                event = _decoded(line, Line)
                if event.chunk is not None:
                    yield event.chunk
                elif event.finish is not None:
                    ended = True
                    response.read()
                    yield event.finish
                    return
            raise NetworkError("the server ended in the middle of the answer")
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"the server went away in the middle of the answer: {error}") from error
        finally:
            if not ended:
                self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def _ask(self, what: str, asked: Asked, kind: type[Value]) -> Value:
        return _decoded(self._post(what, asked).read(), kind)

    def _post(self, what: str, asked: Asked) -> http.client.HTTPResponse:
        """Raises LlmchatError with the server's words where it refuses."""
        try:
            self._connection.request("POST", f"/private/{what}", msgspec.json.encode(asked), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            if response.status != 200:
                raise LlmchatError(str(_decoded(response.read(), dict[str, Any])["error"]["message"]))
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"the server of yours does not answer: {error}") from error
        return response


def _of_the_model(options: Options) -> Options:
    """The options that decide what is loaded. Folders are named as they are called from anywhere."""
    kept = {name: getattr(options, name) for name in ("model", "base", "adapter", "format", "weights", "engine", "device", "revision")}
    for name in ("model", "base", "adapter"):
        if kept[name] and Path(kept[name]).exists():
            kept[name] = str(Path(kept[name]).resolve())
    return Options(**kept, trust_remote_code=options.trust_remote_code)


def _decoded(content: bytes, kind: type[Value]) -> Value:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise NetworkError("the server of yours answers in another way than expected") from error
