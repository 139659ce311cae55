"""GET /api/models: what the web page shows of each model before it is asked: its size, and whether it is in memory or being loaded."""

from typing import Any

from fastapi import APIRouter
from msgspec import Struct, to_builtins

from llmchat.errors import LlmchatError
from llmchat.server.state import ServerState


class ModelFacts(Struct, frozen=True):
    """size: estimated bytes in memory, 0 where it is not known; state: "loaded", "loading" or "idle".

    loading_s: seconds since loading began; expected_s: seconds that loading took the last time. Both are None where they do not apply.
    """

    id: str
    size: int
    state: str
    loading_s: float | None = None
    expected_s: float | None = None


def router(state: ServerState) -> APIRouter:
    routes = APIRouter(prefix="/api")

    # Not async: FastAPI runs it in a thread, since the files of a model may have to be read.
    @routes.get("/models")
    def models() -> dict[str, Any]:
        names = [name for name in state.catalog.names() if "+" not in name]
        return {"object": "list", "data": [to_builtins(model_facts(state, name)) for name in names]}

    return routes


def model_facts(state: ServerState, name: str) -> ModelFacts:
    """Of one model that the catalog names. A model whose files cannot be read has none."""
    try:
        spec = state.catalog.spec(name)
    except LlmchatError:
        return ModelFacts(name, 0, "idle")
    if (loading := state.pool.loading(spec.key)) is not None:
        return ModelFacts(name, spec.size, "loading", *loading)
    loaded = any(loaded.key == spec.key for loaded in state.pool.loaded_models())
    return ModelFacts(name, spec.size, "loaded" if loaded else "idle")
