"""What only the user who runs the server may do, over the Unix socket: unload models, stop. Whoever holds a key may see which are in memory."""

import os
import time
from typing import Any

from fastapi import APIRouter, Request

from llmchat.server.api import Request as Fields
from llmchat.server.api import Text
from llmchat.server.errors import Forbidden
from llmchat.server.middleware import over_unix_socket
from llmchat.server.state import ServerState


class StopRequest(Fields):
    """model: the name that `ps` shows, or None for all that are not in use."""

    model: Text | None = None


def router(state: ServerState) -> APIRouter:
    routes = APIRouter()

    def check_owner(request: Request) -> None:
        if not over_unix_socket(request.scope):
            raise Forbidden("only the user who runs the server may unload models: `llmchat stop`")

    @routes.get("/api/ps")
    async def ps(request: Request) -> dict[str, Any]:
        if not over_unix_socket(request.scope) and request.state.user is None:
            raise Forbidden("this requires an API key, or the Unix socket that `llmchat ps` uses")
        return {
            "models": listed(state),
            "pid": os.getpid(),
            "up_s": round(time.time() - state.started, 1),
        }

    @routes.post("/api/stop")
    async def stop(request: Request, asked: StopRequest) -> dict[str, Any]:
        check_owner(request)
        return {"stopped": await state.pool.stop(asked.model)}

    @routes.post("/private/stop", include_in_schema=False)
    async def end() -> dict[str, Any]:
        state.stop.set()
        return {"stopping": True}

    return routes


def listed(state: ServerState) -> list[dict[str, Any]]:
    """A row a model in memory. expires_s: seconds until it is unloaded, None for never; size in bytes, as it was estimated."""
    rows = []
    for loaded in state.pool.loaded_models():
        left = loaded.expires() - state.pool.now()
        rows.append({
            "name": loaded.key,
            "size": loaded.size,
            "adapters": sorted(loaded.adapters),
            "running": loaded.scheduler.running,
            "waiting": loaded.scheduler.waiting,
            "expires_s": None if left == float("inf") else max(0, round(left)),
        })  # fmt: skip
    return rows
