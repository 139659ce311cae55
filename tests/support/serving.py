"""A real server on loopback for the tests: uvicorn in a thread, with models from the test."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import openai
from msgspec.structs import replace

from llmchat.engines import Engine
from llmchat.hub import pull
from llmchat.models.loading import load
from llmchat.models.locate import locate
from llmchat.output.progress import NoProgress
from llmchat.presets import Preset, find, get_format, preset_for
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.documents import ServedDocuments
from llmchat.server.errors import UnknownModel
from llmchat.server.graceful_server import GracefulServer
from llmchat.server.keys import Keys
from llmchat.server.loaded_model import ModelSpec
from llmchat.server.metrics import Metrics
from llmchat.server.pool import FOREVER, Pool
from llmchat.server.responses_api.store import ResponseStore
from llmchat.server.run import make_app
from llmchat.server.serve_options import ServeOptions
from llmchat.server.state import ServerState
from llmchat.server.tools import ToolRunner
from llmchat.settings import Options
from support.real_weights import real_weights
from support.worlds import make_world

if TYPE_CHECKING:
    from anthropic import Anthropic

CHATML = replace(
    find("smollm2"),
    format=get_format("chatml"),
    sampling=replace(find("smollm2").sampling, max_tokens=0),
    stop_ids=(),
)
# The way Qwen 2.5 and Hermes write tools, shortened.
_HERMES = (
    "{%- if tools %}<|im_start|>system\n<tools>"
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools><|im_end|>\n{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = replace(CHATML, format=get_format("template").with_template(_HERMES, {}))


class Names:
    """A catalog with fixed specs."""

    def __init__(self, specs: Mapping[str, ModelSpec]):
        self.specs = dict(specs)

    def names(self) -> list[str]:
        return list(self.specs)

    def spec(self, name: str) -> ModelSpec:
        if name not in self.specs:
            raise UnknownModel(f"the model `{name}` does not exist")
        return self.specs[name]


def model_spec(
    load: Callable[[], Engine],
    preset: Preset = CHATML,
    key: str = "test",
    size: int = 1,
    **more: Any,
) -> ModelSpec:
    return ModelSpec(key, preset, load, size, **more)


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until the condition holds; fails after timeout_s."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


@dataclass
class Running:
    url: str
    port: int
    state: ServerState
    server: GracefulServer
    loop: asyncio.AbstractEventLoop

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    @property
    def anthropic(self) -> "Anthropic":
        from anthropic import Anthropic

        return Anthropic(base_url=self.url, api_key="none", max_retries=0, timeout=30)

    @property
    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        value = self.state.metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value

    def scheduler(self, key: str = "test") -> Any:
        return next(
            loaded.scheduler for loaded in self.state.pool.loaded_models() if loaded.key == key
        )


def qwen_spec(folder: Path) -> ModelSpec:
    """Qwen2.5-Coder-1.5B with its real weights, pulled into a world in `folder`."""
    preset = preset_for(
        Options(model="qwen2.5-coder-1.5b", base=str(real_weights("qwen15", folder)))
    )
    world = make_world(folder)
    pull(preset.base, world, NoProgress())
    model = locate(preset, world)
    return model_spec(lambda: load(model, Options(device="cpu")), model.preset)


@contextlib.contextmanager
def serving(
    specs: Mapping[str, ModelSpec],
    folder: Path,
    *,
    keep_s: float = FOREVER,
    budget: int = 100,
    tools: ToolRunner | None = None,
    documents: ServedDocuments | None = None,
    **options: Any,
) -> Iterator[Running]:
    """A server with these models. options: of ServeOptions."""
    settings = ServeOptions(port=0, **options)
    metrics = Metrics()
    names: Any = Names(specs)
    listener = socket.create_server(("127.0.0.1", 0))
    started: list[Running] = []
    ready = threading.Event()

    async def main() -> None:
        pool = Pool(
            names.spec,
            metrics,
            budget=budget,
            keep_s=keep_s,
            slots=settings.slots,
            queue=settings.queue,
            timeout_s=settings.timeout_s,
        )
        kept = ConversationStore(folder / "web.db") if settings.history else None
        state = ServerState(
            names,
            pool,
            Keys(settings.key_file or folder / "keys.json"),
            metrics,
            settings.trim,
            settings.log_prompts,
            kept,
            tools,
            documents,
            roles=settings.roles,
        )
        if settings.history:
            state.responses = ResponseStore(folder / "responses.db")
        server = GracefulServer(make_app(state, settings), state, settings)
        port = listener.getsockname()[1]
        started.append(
            Running(f"http://127.0.0.1:{port}", port, state, server, asyncio.get_running_loop())
        )
        ready.set()
        await server.serve(sockets=[listener])
        await pool.close(0.0)
        if kept:
            kept.close()
        state.responses.close()
        if documents:
            documents.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait(30)
    try:
        yield started[0]
    finally:
        started[0].server.should_exit = started[0].server.force_exit = True
        thread.join(30)
        assert not thread.is_alive()


ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def raw(run: Running, *pieces: bytes, wait_s: float = 10.0) -> bytes:
    """What comes back for these bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", run.port), wait_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
        except TimeoutError:
            answer += b"STILL OPEN"
        except ConnectionResetError:
            pass
        return answer
