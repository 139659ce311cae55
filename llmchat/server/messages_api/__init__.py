"""Anthropic's Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

A request becomes a ChatRequest and takes its path; the answer comes back in Anthropic's form.
"""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response

from llmchat.server.answers import Client
from llmchat.server.messages_api.endpoints import answer, check_version, count
from llmchat.server.messages_api.schema import CountRequest, MessagesRequest
from llmchat.server.state import ServerState


def add_routes(api: FastAPI, state: ServerState, client: Callable[[Request], Client]) -> None:
    """client: who sends a request"""

    @api.post("/v1/messages")
    async def messages(request: Request, body: MessagesRequest) -> Response:
        check_version(request.headers)
        return answer(state, body, client(request))

    @api.post("/v1/messages/count_tokens")
    async def count_tokens(request: Request, body: CountRequest) -> dict[str, int]:
        check_version(request.headers)
        return await count(state, body, client(request))
