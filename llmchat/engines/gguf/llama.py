"""llama.cpp in this process, through xllamacpp: its own server behind a private Unix socket.

The socket offers what the package's Python calls do not: token ids in and out, the tokenizer, and
work that stops when the client disconnects. Non-goals: several answers at once, images.
"""

import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmchat.engines.sse import events
from llmchat.errors import ContextOverflow, LlmchatError, Mismatch, OutOfResources, UsageError
from llmchat.settings.types import KvKind

if TYPE_CHECKING:
    import httpx2

# Tokens of a prompt that are read between two checks whether the client is still connected.
BATCH = 512
_LONGEST_FOLDER = 75
_PREFIX, _SOCKET = "llmchat-gguf-", "llama.sock"
# A socket that does not answer and is older than this belongs to a program that was killed.
_YOUNG_S = 60
MISSING = "pip install 'llmchat[gguf]'"
_GPU_WHEELS = (
    "install a wheel of xllamacpp for CUDA, ROCm or Vulkan:"
    " https://github.com/xorbitsai/xllamacpp#installation"
)


class Settings(Struct, frozen=True):
    """How to load a model.

    context: tokens of the window. adapters: LoRA in GGUF, each with its strength. device: auto,
    cpu, cuda, cuda:1 or mps. kv: numbers of the KV cache; llama.cpp's Q8_0 for int8.
    """

    model: Path
    context: int
    adapters: tuple[tuple[Path, float], ...] = ()
    device: str = "auto"
    kv: KvKind = "full"


class Llama:
    """A loaded model. `close` frees its memory."""

    def __init__(self, settings: Settings, *, noisy: bool = False):
        self._server: Any = None
        xllamacpp = _library()
        import httpx2

        # The address of a Unix socket has at most 107 bytes.
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"
        _sweep(Path(parent))
        self._folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        address = os.path.join(self._folder, _SOCKET)
        self._key = secrets.token_urlsafe(24)
        try:
            self._server = xllamacpp.Server(
                _parameters(xllamacpp, settings, address, self._key, noisy)
            )
        except (RuntimeError, ValueError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise Mismatch(
                f"llama.cpp cannot load {settings.model.name}",
                "LLMCHAT_TRACEBACK=1 shows its messages; the engine `transformers` may support it",
            ) from error
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport(
                uds=address, limits=httpx2.Limits(max_keepalive_connections=0)
            ),
            base_url="http://llama",
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=None,
        )
        self.context = int(self.get("/props")["default_generation_settings"]["n_ctx"])

    def get(self, path: str) -> Any:
        with _answering():
            return _checked(self._client.get(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        with _answering():
            return _checked(self._client.post(path, json=body))

    def tokenize(
        self, text: str, *, special: bool, around: bool = False
    ) -> list[tuple[int, bytes]]:
        """Ids of a text, each with its bytes.

        special: special tokens in the text count as such. around: add the tokens that the model
        expects around a text.
        """
        body = {
            "content": text,
            "parse_special": special,
            "add_special": around,
            "with_pieces": True,
        }
        pieces = [(one["id"], one["piece"]) for one in self.post("/tokenize", body)["tokens"]]
        # A part of a character is a list of its bytes.
        return [
            (token, piece.encode() if isinstance(piece, str) else bytes(piece))
            for token, piece in pieces
        ]

    def text_of(self, ids: Sequence[int]) -> str:
        return str(self.post("/detokenize", {"tokens": list(ids)})["content"])

    @contextmanager
    def complete(self, body: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of an answer. Leaving the block stops the work: at the next token, or within a
        second during a prefill.
        """
        with (
            _answering(),
            self._client.stream("POST", "/completion", json={**body, "stream": True}) as response,
        ):
            if not response.is_success:
                response.read()
                _checked(response)
            yield (_event(event.data) for event in events(response.iter_bytes()))

    def close(self) -> None:
        if self._server is not None:
            self._client.close()
            # The destructor of the server ends its threads and frees the model.
            self._server = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def __del__(self) -> None:
        self.close()


def _sweep(place: Path) -> None:
    """Remove the folders of programs that were killed."""
    for path in place.glob(f"{_PREFIX}*/{_SOCKET}"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            if path.stat().st_uid == os.getuid() and time.time() - path.stat().st_mtime > _YOUNG_S:
                try:
                    knock.connect(str(path))
                except ConnectionRefusedError:
                    shutil.rmtree(path.parent, ignore_errors=True)


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise UsageError(
            "the engine `gguf` requires xllamacpp, which is not installed", MISSING
        ) from error
    return xllamacpp


def _parameters(xllamacpp: Any, settings: Settings, socket: str, key: str, noisy: bool) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.model)
    parameters.n_ctx = settings.context
    parameters.n_parallel = 1
    parameters.n_batch = BATCH
    parameters.hostnames = [socket]
    parameters.api_keys = [key]
    parameters.ui = False
    parameters.warmup = False
    # With one chat at a time, no second copy of the KV cache is of use.
    parameters.cache_ram_mib = 0
    # Otherwise it reduces the window and reports that in its log only.
    parameters.fit_params = False
    if settings.kv == "int8":
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    # Its log would appear on stderr in the middle of a chat.
    parameters.verbosity = 2 if noisy else -1
    parameters.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path, scale in settings.adapters
    ]
    # As torch does; by default one thread per core.
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(threads):
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
    _place(parameters, settings.device, _gpus(xllamacpp), xllamacpp)
    return parameters


def _gpus(xllamacpp: Any) -> list[str]:
    """Names of the GPUs that this build of llama.cpp can use."""
    return [
        str(device["name"])
        for device in xllamacpp.get_device_info()
        if "GPU" in str(device["type"])
    ]


def _place(parameters: Any, device: str, gpus: Sequence[str], xllamacpp: Any) -> None:
    """Put all layers on the GPUs if there are any, none for `cpu`, on a single GPU for `cuda:1`."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        parameters.n_gpu_layers = 0
    elif kind not in ("auto", "cuda", "mps") or (number and not number.isdigit()):
        raise UsageError(
            f"there is no device `{device}`", "auto, cpu, cuda, cuda:1 and mps are devices"
        )
    elif kind != "auto" and (not gpus or int(number or 0) >= len(gpus)):
        seen = f"it sees {', '.join(gpus)}" if gpus else "it sees no GPU"
        raise UsageError(f"llama.cpp has no device `{device}`: {seen}", _GPU_WHEELS)
    else:
        parameters.n_gpu_layers = -1
        if number:
            parameters.main_gpu = int(number)
            parameters.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE


@contextmanager
def _answering() -> Iterator[None]:
    import httpx2

    try:
        yield
    except httpx2.TransportError as error:
        raise LlmchatError(
            f"the connection to llama.cpp broke: {error or type(error).__name__}",
            "ask again; `/model` loads the file again",
        ) from error


def _checked(response: "httpx2.Response") -> Any:
    table = response.json()
    if response.is_success:
        return table
    raise _error(table)


def _event(data: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(data)
    if "error" in table:
        raise _error(table)
    return table


def _error(table: dict[str, Any]) -> LlmchatError:
    error = table["error"]
    if error.get("type") == "exceed_context_size_error":
        tokens, context = error["n_prompt_tokens"], error["n_ctx"]
        return ContextOverflow(f"the prompt is {tokens:,} tokens; the model holds {context:,}")
    if "memory" in str(error.get("message")):
        return OutOfResources(
            f"llama.cpp: {error['message']}", "a smaller window with --context takes less"
        )
    return LlmchatError(f"llama.cpp: {error.get('message', error)}")
