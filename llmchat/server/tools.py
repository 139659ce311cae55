"""The tools of `serve --tools` over HTTP: GET /api/tools and POST /api/tools/run.

The server asks nobody for permission: whoever may use these paths decides what runs, as the user of
the web page does with a click. Without --tools the paths do not exist.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from msgspec import Struct
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from llmchat.errors import UsageError
from llmchat.server.api import Request as Body
from llmchat.server.api import Text
from llmchat.server.conversations import user_of
from llmchat.server.errors import Busy, Refusal
from llmchat.server.openai_format import encode_json
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.server.request_bodies import route_class
from llmchat.server.streaming_response import JSON, AnswerResponse
from llmchat.tools import Source, Tool
from llmchat.tools.material import framed
from llmchat.tools.permission import matches
from llmchat.tools.running import Finished
from llmchat.tools.running import run as run_tool
from llmchat.tools.sources import NumberedSource
from llmchat.tools.toolbox import TIMEOUT_S, Toolbox, cut, definition

log = logging.getLogger("llmchat.server")
# Calls that run at the same time, for all clients together.
MAX_RUNNING = 8
# Most characters of a result, unless the request names another limit.
MAX_RESULT = 16_000


class RunBody(Body):
    """limit: most characters of the result's text, beyond the frame of untrusted material."""

    name: Text
    arguments: dict[str, Any] = {}
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = MAX_RESULT


class ToolResult(Struct, frozen=True):
    """text: for the model. error: one line, empty if the tool did its work."""

    text: str
    error: str
    seconds: float
    sources: tuple[NumberedSource, ...]


class UnknownTool(Refusal):
    status = 404

    def __init__(self, name: str):
        super().__init__(f"there is no tool `{name[:100]}`", param="name", code="tool_not_found")


def check_remote(tools: Collection[Tool], allowed: Collection[str]) -> None:
    """Raises UsageError for a tool that may change something, unless --allow names it: other
    machines can run the tools of this server.
    """
    for tool in tools:
        if not tool.read_only and not any(matches(name, tool) for name in allowed):
            raise UsageError(
                f"other machines could run `{tool.name}` here, which may change something",
                f"`--allow {tool.name}` lets every holder of an API key run it",
            )


class ToolRunner:
    """Runs the tools of a server, a bounded number at the same time, in threads of its own."""

    def __init__(
        self, box: Toolbox, *, max_running: int = MAX_RUNNING, timeout_s: float = TIMEOUT_S
    ):
        self._box = box
        self._max_running, self._timeout_s = max_running, timeout_s
        self._threads = ThreadPoolExecutor(max_running, "tool call")
        self._running: set[Event] = set()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        """Stop all tools, which takes at most about a second."""
        for stop in list(self._running):
            stop.set()
        self._threads.shutdown()

    def definitions(self) -> list[dict[str, Any]]:
        """The tools as a request's `tools` define them, each with its group and whether it only
        reads."""
        return [
            {**definition(tool), "group": tool.group, "read_only": tool.read_only}
            for tool in self._box.active
        ]

    async def run(self, body: RunBody) -> ToolResult:
        """Run a call; cancelling it stops the tool. Raises UnknownTool, and Busy if too many run.

        A slot is taken until the tool has ended, even if the client is gone.
        """
        tool = next((one for one in self._box.active if one.name == body.name), None)
        if tool is None:
            raise UnknownTool(body.name)
        if len(self._running) >= self._max_running:
            raise Busy("too many tools are running", 2)
        stop = Event()
        self._running.add(stop)
        work = self._threads.submit(self._work, tool, body, stop)
        work.add_done_callback(lambda _: self._running.discard(stop))
        try:
            return await asyncio.wrap_future(work)
        finally:
            stop.set()

    def _work(self, tool: Tool, body: RunBody, stop: Event) -> ToolResult:
        done = run_tool(tool, body.arguments, timeout_s=self._timeout_s, stop=stop)
        if done.details:
            log.error("the tool %s failed\n%s", tool.name, done.details)
        for note in self._box.take_notes():
            log.info("%s", note)
        sources = tuple(map(self._numbered, done.sources))
        return ToolResult(_text(done, body.limit), done.error, done.seconds, sources)

    def _numbered(self, source: Source) -> NumberedSource:
        return NumberedSource(self._box.sources.number(source), source.title, source.url)


def _text(done: Finished, limit: int) -> str:
    text = cut(f"error: {done.error}" if done.error else done.text, limit, len)
    return framed(text) if done.untrusted else text


def _user(request: Request) -> str:
    """Without a key, other users of this machine must not read files by the server's tools."""
    return user_of(request, "the tools")


def router(runner: ToolRunner | None) -> APIRouter:
    """runner: None if the server was started without tools."""
    routes = APIRouter(prefix="/api", route_class=route_class(PromptWorkers(1)))
    if runner is not None:
        _add_tools(routes, runner)
    return routes


def _add_tools(routes: APIRouter, runner: ToolRunner) -> None:
    @routes.get("/tools", dependencies=[Depends(_user)])
    def tools() -> dict[str, Any]:
        return {"object": "list", "data": runner.definitions()}

    @routes.post("/tools/run", dependencies=[Depends(_user)])
    async def run(body: RunBody) -> Response:
        if body.model_extra:
            raise Refusal(f"unknown field `{next(iter(body.model_extra))[:100]}`")

        async def pieces() -> AsyncGenerator[bytes]:
            yield encode_json(await runner.run(body))

        return AnswerResponse(pieces(), JSON)
