"""Documents over HTTP, for the web page: GET /api/docs lists the indexes that requests may search;
POST and DELETE below /api/files/{chat} keep the files of a chat.
"""

import math
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import Response

from llmchat.memory.erasing import erase
from llmchat.server.chat_files import ChatFiles
from llmchat.server.conversations import user_of
from llmchat.server.documents import ServedDocuments
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.server.streaming_response import JSON

# Bytes of one file.
MAX_FILE = 20_000_000
PREFIX = "/api/files/"
Chat = Annotated[str, InPath(pattern=r"^[0-9a-f]{24}$")]
Name = Annotated[str, Query(min_length=1, max_length=1000)]


def documents_user(request: Request) -> str:
    """Without a key, other users of this machine must not search documents or read files."""
    return user_of(request, "the documents")


User = Annotated[str, Depends(documents_user)]


def router(documents: ServedDocuments | None) -> APIRouter:
    """documents: None for a server without any."""
    routes = APIRouter(prefix="/api")
    if documents is not None:
        _add_docs(routes, documents)
        _add_files(routes, documents)
    return routes


def _add_docs(routes: APIRouter, documents: ServedDocuments) -> None:
    @routes.get("/docs", dependencies=[Depends(documents_user)])
    async def docs(request: Request) -> dict[str, Any]:
        client = request.state.client
        sizes = await documents.workers.run(client, math.inf, documents.sizes)
        data = [
            {"id": name, "documents": count, "passages": passages}
            for name, count, passages in sizes
        ]
        return {"object": "list", "data": data}


def _add_files(routes: APIRouter, documents: ServedDocuments) -> None:
    files, readers = documents.files, PromptWorkers(2)

    @routes.post("/files/{chat}", status_code=201)
    async def add(request: Request, user: User, chat: Chat, name: Name) -> Response:
        data = await request.body()
        client = request.state.client
        added = await readers.run(client, math.inf, lambda: files.add(user, chat, name, data))
        return Response(msgspec.json.encode(added), 201, media_type=JSON)

    @routes.delete("/files/{chat}/{id}", status_code=204)
    async def remove(request: Request, user: User, chat: Chat, id: str) -> None:
        client = request.state.client
        await documents.workers.run(client, math.inf, lambda: _remove(files, user, id))

    @routes.delete("/files/{chat}", status_code=204)
    async def forget(request: Request, user: User, chat: Chat) -> None:
        client = request.state.client
        await documents.workers.run(client, math.inf, lambda: files.forget(user, chat))


def _remove(files: ChatFiles, user: str, id: str) -> None:
    """Forget a file and its passages."""
    path, name = files.index_path(user, id), files.remove(user, id)
    if path.exists():
        erase(path, [name])
