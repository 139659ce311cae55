"""POST /v1/responses, and the stored responses: GET and DELETE /v1/responses/{id}, and GET
/v1/responses/{id}/input_items.
"""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from llmchat.server.answers import Client
from llmchat.server.conversations import user_of
from llmchat.server.errors import BadRequest, Refusal, Unsupported
from llmchat.server.files_api import documents_user
from llmchat.server.openai_format import encode_json
from llmchat.server.responses_api.answering import Asker, respond
from llmchat.server.responses_api.schema import ResponseRequest
from llmchat.server.responses_api.store import Item, StoredResponse
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON


class ResponseNotFound(Refusal):
    status = 404

    def __init__(self, id: str):
        super().__init__(f"there is no stored response `{id[:64]}`", code="response_not_found")


def _user(request: Request) -> str:
    return user_of(request, "stored responses")


# FastAPI calls `_user` in a thread, which it needs because it reads files in /proc.
User = Annotated[str, Depends(_user)]
Limit = Annotated[int, Query(ge=1, le=100)]


def add_responses(api: FastAPI, state: ServerState) -> None:
    @api.post("/v1/responses")
    async def create(request: Request, body: ResponseRequest) -> Response:
        client = Client(request.state.client, partial(documents_user, request))
        return respond(state, body, Asker(client, partial(_user, request)))

    @api.get("/v1/responses/{id}")
    def retrieve(user: User, id: str, stream: bool = False) -> Response:
        if stream:
            raise Unsupported("a stored response cannot be streamed", "stream")
        return _json(_stored(state, user, id).response)

    @api.delete("/v1/responses/{id}")
    def delete(user: User, id: str) -> dict[str, Any]:
        if not state.responses.remove(user, id):
            raise ResponseNotFound(id)
        return {"id": id, "object": "response", "deleted": True}

    @api.get("/v1/responses/{id}/input_items")
    def input_items(
        user: User,
        id: str,
        after: str | None = None,
        limit: Limit = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        stored = _stored(state, user, id)
        items = stored.items[: stored.answered]
        return _json(_page(items if order == "asc" else items[::-1], after, limit))


def _stored(state: ServerState, user: str, id: str) -> StoredResponse:
    stored = state.responses.get(user, id)
    if stored is None:
        raise ResponseNotFound(id)
    return stored


def _page(items: list[Item], after: str | None, limit: int) -> dict[str, Any]:
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise BadRequest(f"there is no item `{after[:64]}`", param="after")
    start = 0 if after is None else ids.index(after) + 1
    data = items[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(items),
    }


def _json(value: object) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(encode_json(value), media_type=JSON, headers=headers)
