"""A server for the tests of the page, with scripted answers: slow ones, broken ones, refusals.

The page, its headers and the stored conversations are the real ones.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llmchat.errors import LlmchatError
from llmchat.server import conversation_search, files_api, page
from llmchat.server import tools as tool_runs
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.conversations import router
from llmchat.server.documents import ServedDocuments
from llmchat.server.errors import Busy, Unauthorised, error_body, error_response
from llmchat.server.tools import ToolRunner

PRESETS = {
    "small": {"sampling": {"temperature": 0.6}, "system": ""},
    "org/large": {"sampling": {}, "system": "Be exact."},
    "small+poet": {},
    "small+pirate": {},
}
WINDOWS = {"small": 2048, "org/large": 32768}
WINDOW = {"limit": 2048, "tokens": 9, "sent": 3, "dropped": 2}


@dataclass
class Script:
    """The next answers. An answer is a list of steps: a text is sent; a number waits that many
    seconds; an Event is waited for; an exception ends the answer, before the first text with an
    HTTP status, later with an event of the stream, ConnectionError with a lost connection.

    A dict has "thinking", "calls" of tools as (name, arguments), or of the end the "reason", the
    "sources" of documents and the names of "searched" files.

    `requests` are the received bodies; `gone` is set when a client disconnects during an answer.
    """

    answers: list[list[Any]] = field(default_factory=list)
    default: list[Any] = field(default_factory=lambda: ["This ", "is ", "an answer."])
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    key: str = ""
    facts: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"id": "small", "size": 150_000_000, "state": "loaded"},
            {"id": "org/large", "size": 1_640_000_000, "state": "idle"},
        ]
    )

    def next(self) -> list[Any]:
        return self.answers.pop(0) if self.answers else list(self.default)


def create(
    script: Script,
    store: ConversationStore | None,
    tools: ToolRunner | None = None,
    documents: ServedDocuments | None = None,
) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        request.state.user = request.state.client = "me"
        if script.key and request.url.path.startswith(("/v1", "/api")):
            given = request.headers.get("authorization", "")
            script.keys.append(given)
            if given != f"Bearer {script.key}":
                return _refused(request, Unauthorised("an API key is needed"))
        return await call_next(request)

    app.exception_handler(LlmchatError)(_refused)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"id": name, "context_length": WINDOWS.get(name)} for name in PRESETS],
        }

    @app.get("/api/models")
    def facts() -> dict[str, Any]:
        return {"object": "list", "data": list(script.facts)}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        return {"id": name, "llmchat": PRESETS[name]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        script.requests.append(await request.json())
        steps = script.next()
        if steps and isinstance(steps[0], LlmchatError):
            raise steps[0]
        return StreamingResponse(_streamed(script, steps), media_type="text/event-stream")

    has = {"tools": tools is not None, "files": documents is not None}
    app.include_router(router(store, **has))
    app.include_router(files_api.router(documents))
    app.include_router(tool_runs.router(tools))
    app.include_router(conversation_search.router(store))
    page.mount(app)
    return app


def _refused(request: Request, error: Exception) -> Response:
    return error_response(error)


async def _streamed(script: Script, steps: list[Any]) -> AsyncIterator[str]:
    tokens = 0

    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({'choices': [choice], **more})}\n\n"

    try:
        yield chunk({"role": "assistant", "content": ""})
        reason, cited, searched = "stop", {}, {}
        for step in steps:
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
            elif isinstance(step, threading.Event):
                while not step.is_set():
                    await asyncio.sleep(0.01)
            elif isinstance(step, ConnectionError):
                raise step
            elif isinstance(step, Exception):
                yield f"data: {json.dumps(error_body(str(step), 'server_error'))}\n\n"
                return
            elif isinstance(step, dict):
                reason = step.get("reason", reason)
                cited = {"sources": step["sources"]} if "sources" in step else cited
                searched = {"searched": step["searched"]} if "searched" in step else searched
                if "thinking" in step:
                    yield chunk({"reasoning_content": step["thinking"]})
                if "calls" in step:
                    reason = "tool_calls"
                    yield chunk({"tool_calls": _calls(step["calls"])})
            else:
                tokens += 1
                yield chunk({"content": step})
        yield chunk(cited, reason)
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        details = {"window": WINDOW, "prompt": "<s>All of it", **searched}
        yield f"data: {json.dumps({'choices': [], 'usage': usage, 'llmchat': details})}\n\n"
        yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        script.gone.set()
        raise


def _calls(calls: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "id": f"call-{index}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, (name, arguments) in enumerate(calls)
    ]


def busy(seconds: float) -> Busy:
    return Busy("too many at once", seconds)


@contextlib.contextmanager
def serving(
    script: Script,
    database: Path | None = None,
    tools: ToolRunner | None = None,
    documents: ServedDocuments | None = None,
) -> Iterator[str]:
    """The server's address. database: where it keeps history; None for none."""
    store = ConversationStore(database) if database else None
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create(script, store, tools, documents),
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        if store:
            store.close()
