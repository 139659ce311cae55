"""The engine for a model in the user's background server, over its Unix socket.

`server.owner_api` is the other end. No heavy library is imported: a one-shot has to answer at once.
"""

import http.client
from collections.abc import Generator
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llmchat import __version__
from llmchat.background.client import UnixConnection, socket_file
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Finish, Sampling, Unloaded
from llmchat.errors import ContextOverflow, LlmchatError, NetworkError
from llmchat.presets.types import Preset
from llmchat.prompt import Prompt
from llmchat.settings import Options, World

# Client and server must have the same version.
PROTOCOL = f"1 {__version__}"
# A running server accepts a connection at once; only loading a model takes long.
_CONNECT_S = 1.0
_ANSWER_S = 900.0

Value = TypeVar("Value")


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a model: preset and options as `models.loading.load` takes them.

    places: where the client looks for files, which must be the same for the server.
    """

    protocol: str
    preset: Preset
    options: Options
    places: tuple[str, ...]


class Facts(Struct, frozen=True):
    """The model as the server has it. key: names it in later requests; preset: with the template of
    the checkpoint; made_by: see models.loading.provenance; follows_grammars: see
    capabilities.FollowsGrammars.
    """

    key: str
    context: int
    describe: str
    preset: Preset
    made_by: dict[str, Any]
    follows_grammars: bool


class Count(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    texts: tuple[str, ...]


class Encode(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    prompts: tuple[Prompt, ...]


class Ask(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    conversation: Conversation
    sampling: Sampling


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    prompt: Prompt
    sampling: Sampling


class Line(Struct, frozen=True, omit_defaults=True):
    """One event of an answer."""

    chunk: Chunk | None = None
    finish: Finish | None = None


class BackgroundEngine:
    """A model that the background server of this user has in memory, or loads."""

    load_s = 0.0
    # The server loads only models of the engines that run in its own process; these all resume.
    resumes = True

    def __init__(self, world: World, preset: Preset, options: Options, places: tuple[str, ...]):
        """Raises OSError if no server listens, LlmchatError if it cannot serve this model."""
        self._counts: dict[str, int] = {}
        self._unloaded = False
        self._connection = UnixConnection(socket_file(world), _CONNECT_S)
        self._connection.connect()
        self._connection.sock.settimeout(_ANSWER_S)
        self.facts = self._ask("open", Hello(PROTOCOL, preset, options, places), Facts)
        self.context = self.facts.context
        self.follows_grammars = self.facts.follows_grammars

    def describe(self) -> str:
        return f"{self.facts.describe}, served"

    def count(self, text: str) -> int:
        if self._unloaded or text not in self._counts:
            self._counts[text] = self._ask("count", Count(self.facts.key, (text,)), list[int])[0]
        return self._counts[text]

    def encode(self, prompt: Prompt) -> list[int]:
        return self._ask("encode", Encode(self.facts.key, (prompt,)), list[list[int]])[0]

    def ask(self, conversation: Conversation, sampling: Sampling, kind: type[Value]) -> Value:
        """See capabilities.InBackground: window and prompt in one
        step, where the tokenizer and the template are.
        """
        return self._ask("ask", Ask(self.facts.key, conversation, sampling), kind)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        """Closing it early closes the connection, which stops the server's work."""
        response = self._post("stream", Stream(self.facts.key, prompt, sampling))
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
            raise NetworkError("the background server stopped in the middle of the answer")
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(
                f"the connection to the background server broke during the answer: {error}"
            ) from error
        finally:
            if not ended:
                self._connection.close()

    def clear_cache(self) -> None:
        """Does nothing: the cache belongs to the server."""

    def unload(self) -> None:
        """Close the connection; the server keeps its model as long as its own rules say."""
        self._unloaded = True
        self._connection.close()

    def _ask(self, what: str, asked: Struct, kind: type[Value]) -> Value:
        return _decoded(self._post(what, asked).read(), kind)

    def _post(self, what: str, asked: Struct) -> http.client.HTTPResponse:
        """Raises the error that the server reports."""
        if self._unloaded:
            raise Unloaded(self.describe())
        try:
            self._connection.request(
                "POST",
                f"/private/{what}",
                msgspec.json.encode(asked),
                {"Content-Type": "application/json"},
            )
            response = self._connection.getresponse()
            if response.status != 200:
                raise _refusal(_decoded(response.read(), dict[str, Any])["error"])
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"the background server does not answer: {error}") from error
        return response


def _refusal(error: dict[str, Any]) -> LlmchatError:
    """The error that the server reports, as the engine in this process would raise it."""
    too_long = error.get("code") == "context_length_exceeded"
    return (ContextOverflow if too_long else LlmchatError)(str(error["message"]))


def _decoded(content: bytes, kind: type[Value]) -> Value:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise NetworkError("unexpected response from the background server") from error
