"""Routes that manage the server: list the loaded models, unload them, shut down.

Every key holder may list them; only the user who runs the server, over the Unix socket, may do the
rest.
"""

import math
import os
from typing import Any

from fastapi import APIRouter, Request

from llmchat.server.access_control import over_unix_socket
from llmchat.server.api import Request as Fields
from llmchat.server.api import Text
from llmchat.server.errors import Forbidden
from llmchat.server.state import ServerState


class StopRequest(Fields):
    """model: a name from `llmchat ps`, or None for all models that are not in use."""

    model: Text | None = None


def router(state: ServerState) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/ps")
    async def ps(request: Request) -> dict[str, Any]:
        if not over_unix_socket(request.scope) and request.state.user is None:
            raise Forbidden("this path requires an API key; `llmchat ps` works without one")
        return {
            "models": loaded_rows(state),
            "pid": os.getpid(),
            "up_s": round(state.now() - state.started, 1),
        }

    @routes.post("/api/stop")
    async def stop(request: Request, asked: StopRequest) -> dict[str, Any]:
        if not over_unix_socket(request.scope):
            raise Forbidden("only the user who runs the server may unload models: `llmchat stop`")
        return {"stopped": await state.pool.unload_idle(asked.model)}

    @routes.post("/private/stop", include_in_schema=False)
    async def shut_down() -> dict[str, Any]:
        state.stop.set()
        return {"stopping": True}

    return routes


def loaded_rows(state: ServerState) -> list[dict[str, Any]]:
    """One row for each loaded model.

    size: estimated bytes; expires_s: seconds until the model is unloaded, None for never.
    """
    now = state.pool.now()
    return [
        {
            "name": model.key,
            "size": model.size,
            "adapters": sorted(model.adapters),
            "running": model.scheduler.running,
            "waiting": model.scheduler.waiting,
            "expires_s": _seconds_left(model.expires_at() - now),
        }
        for model in state.pool.loaded_models()
    ]


def _seconds_left(seconds: float) -> int | None:
    return None if math.isinf(seconds) else max(0, round(seconds))
