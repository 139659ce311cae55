"""GET /api/models: for the web page's menu, each model's size and whether it is loaded."""

from typing import Any

from fastapi import APIRouter
from msgspec import Struct, to_builtins

from llmchat.errors import LlmchatError
from llmchat.server.state import ServerState


class ModelFacts(Struct, frozen=True):
    """size: estimated bytes in memory, 0 if unknown; state: "loaded", "loading" or "idle".

    loading_s: seconds since loading started; expected_s: seconds that loading took last time. Both
    are None unless they apply.
    """

    id: str
    size: int
    state: str
    loading_s: float | None = None
    expected_s: float | None = None


def router(state: ServerState) -> APIRouter:
    routes = APIRouter(prefix="/api")

    # Not async, so that FastAPI calls it in a thread: it may read the files of models.
    @routes.get("/models")
    def models() -> dict[str, Any]:
        names = [name for name in state.catalog.names() if "+" not in name]
        return {"object": "list", "data": [to_builtins(model_facts(state, name)) for name in names]}

    return routes


def model_facts(state: ServerState, name: str) -> ModelFacts:
    """name: from the catalog. A model whose files cannot be read has size 0."""
    try:
        spec = state.catalog.spec(name)
    except LlmchatError:
        return ModelFacts(name, 0, "idle")
    if (progress := state.pool.load_progress(spec.key)) is not None:
        return ModelFacts(name, spec.size, "loading", *progress)
    is_loaded = any(model.key == spec.key for model in state.pool.loaded_models())
    return ModelFacts(name, spec.size, "loaded" if is_loaded else "idle")
