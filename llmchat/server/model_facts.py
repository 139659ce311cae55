"""GET /api/models: what the web page shows of each model before it is asked: its size, and whether it is in memory or being loaded."""

from typing import Any

from fastapi import APIRouter
from msgspec import Struct, to_builtins

from llmchat.errors import LlmchatError
from llmchat.server.state import State


class Facts(Struct, frozen=True):
    """size: estimated bytes in memory, 0 where it is not known; state: "loaded", "loading" or "idle".

    loading_s: seconds since loading began; expected_s: seconds that loading took the last time. Both are None where they do not apply.
    """

    id: str
    size: int
    state: str
    loading_s: float | None = None
    expected_s: float | None = None


def router(state: State) -> APIRouter:
    routes = APIRouter(prefix="/api")

    # Not async: FastAPI runs it in a thread, since the files of a model may have to be read.
    @routes.get("/models")
    def models() -> dict[str, Any]:
        names = [name for name in state.catalog.names() if "+" not in name]
        return {"object": "list", "data": [to_builtins(facts(state, name)) for name in names]}

    return routes


def facts(state: State, name: str) -> Facts:
    """Of one model that the catalog names. A model whose files cannot be read has none."""
    try:
        recipe = state.catalog.recipe(name)
    except LlmchatError:
        return Facts(name, 0, "idle")
    if (loading := state.pool.loading(recipe.key)) is not None:
        return Facts(name, recipe.size, "loading", *loading)
    loaded = any(resident.key == recipe.key for resident in state.pool.residents())
    return Facts(name, recipe.size, "loaded" if loaded else "idle")
