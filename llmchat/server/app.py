"""The endpoints, and what becomes of errors. `create_app` is all that a server needs; run.py puts sockets under it."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llmchat import __version__
from llmchat.errors import LlmchatError
from llmchat.presets import Preset
from llmchat.server import admin, conversation_search, conversations, model_facts, owner_api, page
from llmchat.server.api import ChatRequest, CompletionRequest, EmbeddingRequest
from llmchat.server.chat_completions import chat
from llmchat.server.completions import complete
from llmchat.server.embeddings import embed
from llmchat.server.errors import UnknownModel, body, describe_error
from llmchat.server.limits import RateLimit
from llmchat.server.middleware import AccessControl, AccessLog, App, BodyReader
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.server.request_bodies import route_class
from llmchat.server.state import ServerState
from llmchat.settings.sampling import DISTRIBUTION


def create_app(
    state: ServerState,
    *,
    rate: int = 0,
    max_body: int = 4_000_000,
    body_timeout_s: float = 60.0,
    hosts: frozenset[str] | None = None,
    origins: Sequence[str] = (),
    keyless: bool = False,
) -> App:
    """rate: requests a minute for each client, 0 for no limit. hosts: the names this server answers to, None for all; origins: pages that may
    use it from elsewhere; keyless: whether it answers without a key as long as there has been none."""
    api = FastAPI(title="llmchat", version=__version__, docs_url=None, redoc_url=None)
    api.router.route_class = route_class(PromptWorkers(1))
    _add_errors(api)
    _add_models(api, state)
    _add_generation(api, state)
    api.include_router(admin.router(state))
    api.include_router(model_facts.router(state))
    api.include_router(owner_api.router(state))
    api.include_router(conversations.router(state.conversations))
    api.include_router(conversation_search.router(state.conversations))
    page.mount(api)
    inner: App = BodyReader(api, max_body, body_timeout_s)
    if origins:
        inner = CORSMiddleware(
            inner, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    inner = AccessControl(
        inner, state.keys, RateLimit(rate), hosts, frozenset(origins), keyless=keyless
    )
    return AccessLog(
        inner, lambda path, status: state.metrics.requests.labels(path, str(status)).inc()
    )


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Of the ways in which a value may be written, the one that came furthest is the one that was meant.
        nearest = max(error.errors(), key=lambda problem: len(problem["loc"]))
        # The names of types that pydantic puts between are none of the request's.
        parts = [
            str(part)
            for part in nearest["loc"][1:]
            if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part)
        ]
        where = ".".join(parts)
        message = f"{where}: {nearest['msg']}" if where else nearest["msg"]
        return JSONResponse(body(message, "invalid_request_error", where or None), 400)

    @api.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        return JSONResponse(
            body(str(error.detail), kind, None, code), error.status_code, error.headers
        )

    @api.exception_handler(LlmchatError)
    async def refused(request: Request, error: LlmchatError) -> Response:
        status, headers, content = describe_error(error)
        return JSONResponse(content, status, headers)


def _add_models(api: FastAPI, state: ServerState) -> None:
    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "stopping" if state.stop.is_set() else "ok"}

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, state) for name in state.catalog.names()]}

    @api.get("/v1/models/{model:path}")
    def model(model: str) -> dict[str, Any]:
        if model not in state.catalog.names():
            raise UnknownModel(f"the model `{model[:100]}` does not exist")
        return _model(model, state) | {"llmchat": _preset(state.catalog.spec(model).preset)}


def _preset(preset: Preset) -> dict[str, Any]:
    """Beyond OpenAI's API: what a request says by itself where it says nothing, and the system text that the model was made for."""
    names = (*DISTRIBUTION, "max_tokens")
    return {
        "sampling": {name: getattr(preset.sampling, name) for name in names},
        "system": preset.system,
    }


def _model(name: str, state: ServerState) -> dict[str, Any]:
    """max_model_len and context_length are vLLM's and others' names for the window, in tokens; None where only the loaded model tells."""
    try:
        window = state.pool.window(state.catalog.spec(name)) or None
    except LlmchatError:
        window = None
    told = {"id": name, "object": "model", "created": int(state.started), "owned_by": "llmchat"}
    return {**told, "max_model_len": window, "context_length": window}


def _add_generation(api: FastAPI, state: ServerState) -> None:
    @api.post("/v1/chat/completions")
    async def chat_completions(request: Request, asked: ChatRequest) -> Response:
        return chat(state, asked, request.state.client)

    @api.post("/v1/completions")
    async def completions(request: Request, asked: CompletionRequest) -> Response:
        return complete(state, asked, request.state.client)

    @api.post("/v1/embeddings")
    async def embeddings(request: Request, asked: EmbeddingRequest) -> Response:
        return await embed(state, asked, request.state.client)
