"""uvicorn's server with a graceful shutdown that finishes answers, and with idle timeouts."""

import asyncio
import resource
import socket
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from llmchat.server.head_timeout import HeadTimeoutProtocol
from llmchat.server.serve_options import ServeOptions
from llmchat.server.state import ServerState

MAX_CONNECTIONS = 1000
# The fraction of the process's file descriptors that connections may use.
_FILES_FRACTION = 0.5
_CHECK_INTERVAL_S = 1.0
# Added to the grace period, so that streams that are cut off still get their error event.
_FINAL_EVENTS_S = 5


class GracefulServer(uvicorn.Server):
    """Shuts down on a signal, on `state.stop`, or when idle: refuses new requests, and finishes the
    running ones within grace_s seconds."""

    def __init__(self, app: ASGIApp, state: ServerState, options: ServeOptions):
        super().__init__(_config(app, options))
        self._state = state
        self._idle_s = options.idle_s
        self._grace_s = options.grace_s
        self._checked = 0.0

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if now - self._checked >= _CHECK_INTERVAL_S:
            self._checked = now
            await self._state.pool.unload_expired()
        if self._state.pool.busy or (self._state.tools and self._state.tools.busy):
            self._state.last_used = now
        idle = bool(self._idle_s) and now - self._state.last_used > self._idle_s
        return await super().on_tick(counter) or self._state.stop.is_set() or idle

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stop.set()
        self._state.pool.drain()
        loop = asyncio.get_running_loop()
        abort = loop.call_later(self._grace_s, self._state.pool.abort)
        await super().shutdown(sockets)
        abort.cancel()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal stops gracefully, the second immediately. Unlike in uvicorn, the signal
        is not raised again at the end."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _config(app: ASGIApp, options: ServeOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=HeadTimeoutProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=max_connections(),
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=round(options.grace_s) + _FINAL_EVENTS_S,
    )


def max_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, int(files * _FILES_FRACTION))
