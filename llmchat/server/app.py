"""The ASGI application: all endpoints, and the layers that every request passes through.

Sockets and the life of the process are the concern of run.py.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from llmchat import __version__
from llmchat.errors import LlmchatError
from llmchat.server import (
    admin,
    conversation_search,
    conversations,
    files_api,
    messages_api,
    model_facts,
    owner_api,
    page,
    tools,
)
from llmchat.server.access_control import AccessControl
from llmchat.server.access_log import AccessLog
from llmchat.server.answers import Client
from llmchat.server.api import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    RerankRequest,
)
from llmchat.server.body_reader import BodyReader
from llmchat.server.chat_completions import chat
from llmchat.server.completions import complete
from llmchat.server.embeddings import embed
from llmchat.server.errors import UnknownModel, error_body, error_response
from llmchat.server.limits import RateLimit
from llmchat.server.loaded_model import ModelSpec
from llmchat.server.messages_api.errors import MessagesLayer
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.server.request_bodies import route_class
from llmchat.server.reranking import rerank
from llmchat.server.responses_api.routes import add_responses
from llmchat.server.state import ServerState
from llmchat.settings.sampling import PARAMETERS


def create_app(
    state: ServerState,
    *,
    rate: int = 0,
    max_body: int = 4_000_000,
    body_timeout_s: float = 60.0,
    hosts: frozenset[str] | None = None,
    origins: Sequence[str] = (),
    keyless: bool = False,
) -> ASGIApp:
    """rate: requests a minute for each client, 0 for no limit; hosts: the accepted host names,
    None for all; origins: other web pages that may use the server; keyless: see AccessControl."""
    api = FastAPI(title="llmchat", version=__version__, docs_url=None, redoc_url=None)
    api.router.route_class = route_class(PromptWorkers(1))
    _add_error_handlers(api)
    _add_server_info(api, state)
    _add_models(api, state)
    _add_generation(api, state)
    add_responses(api, state)
    messages_api.add_routes(api, state, _client)
    api.include_router(admin.router(state))
    api.include_router(model_facts.router(state))
    api.include_router(owner_api.router(state))
    has = {"tools": state.tools is not None, "files": state.documents is not None}
    api.include_router(conversations.router(state.conversations, **has))
    api.include_router(conversation_search.router(state.conversations))
    api.include_router(tools.router(state.tools))
    api.include_router(files_api.router(state.documents))
    page.mount(api)
    app: ASGIApp = BodyReader(api, max_body, body_timeout_s, {files_api.PREFIX: files_api.MAX_FILE})
    if origins:
        methods, allowed = ["GET", "POST"], list(origins)
        app = CORSMiddleware(app, allowed, allow_methods=methods, allow_headers=["*"])
    limit = RateLimit(rate)
    app = AccessControl(app, state.keys, limit, hosts, frozenset(origins), keyless=keyless)
    counted = AccessLog(
        app, lambda path, status: state.metrics.requests.labels(path, str(status)).inc()
    )
    return MessagesLayer(counted)


def _add_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # A value may have several allowed types, each with its own error: the deepest one belongs
        # to the type that the client meant.
        nearest = max(error.errors(), key=lambda problem: len(problem["loc"]))
        where = _field_path(nearest["loc"][1:])
        message = f"{where}: {nearest['msg']}" if where else nearest["msg"]
        return JSONResponse(error_body(message, "invalid_request_error", where or None), 400)

    @api.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        body = error_body(str(error.detail), kind, None, code)
        return JSONResponse(body, error.status_code, error.headers)

    @api.exception_handler(LlmchatError)
    async def refused(request: Request, error: LlmchatError) -> Response:
        return error_response(error)


def _field_path(location: Sequence[int | str]) -> str:
    """`messages.0.content`, without the names of types that pydantic inserts."""
    return ".".join(
        str(part) for part in location if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part)
    )


def _add_server_info(api: FastAPI, state: ServerState) -> None:
    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "stopping" if state.stop.is_set() else "ok"}

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_models(api: FastAPI, state: ServerState) -> None:
    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, state) for name in state.catalog.names()]}

    @api.get("/v1/models/{model:path}")
    def model(model: str) -> dict[str, Any]:
        if model not in state.catalog.names():
            raise UnknownModel(f"the model `{model[:100]}` does not exist")
        return _model(model, state) | {"llmchat": _details(state.catalog.spec(model))}


def _details(spec: ModelSpec) -> dict[str, Any]:
    """Beyond OpenAI's API: the sampling defaults of a request, the model's system prompt, the
    tokens that it was trained for (0 if unknown), and whether its own prompt format has tools."""
    names, preset = (*PARAMETERS, "max_tokens"), spec.preset
    return {
        "sampling": {name: getattr(preset.sampling, name) for name in names},
        "system": preset.system,
        "trained_context": spec.context or preset.trained_context,
        "tools": preset.format.has_tools,
    }


def _model(name: str, state: ServerState) -> dict[str, Any]:
    """max_model_len (vLLM) and context_length (others) are the context window in tokens, None if
    unknown before the model is loaded."""
    try:
        window = state.pool.window(state.catalog.spec(name)) or None
    except LlmchatError:
        window = None
    model = {"id": name, "object": "model", "created": int(state.started), "owned_by": "llmchat"}
    return {**model, "max_model_len": window, "context_length": window}


def _client(request: Request) -> Client:
    return Client(request.state.client, partial(files_api.documents_user, request))


def _add_generation(api: FastAPI, state: ServerState) -> None:
    @api.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        return chat(state, body, _client(request))

    @api.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        return complete(state, body, request.state.client)

    @api.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        return await embed(state, body, request.state.client)

    @api.post("/v1/rerank")
    async def reranking(request: Request, body: RerankRequest) -> Response:
        return await rerank(state, body, request.state.client)
