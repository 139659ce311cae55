"""The items that a request brings, in the form in which they are stored."""

from typing import Any

from llmchat.server.errors import BadRequest
from llmchat.server.responses_api.output import new_item_id
from llmchat.server.responses_api.schema import ItemReference, ResponseRequest
from llmchat.server.responses_api.store import Item, ResponseStore


def own_items(request: ResponseRequest, store: ResponseStore, user: str | None) -> list[Item]:
    """Each with an id; references are replaced by what they name. Raises BadRequest."""
    if isinstance(request.input, str):
        return [_message("user", request.input)]
    ids = [item.id for item in request.input if isinstance(item, ItemReference)]
    known = store.items(user, ids) if user is not None else {}
    if missing := [id for id in ids if id not in known]:
        message = f"there is no stored item `{missing[0][:64]}`"
        raise BadRequest(message, param="input", code="item_not_found")
    return [
        known[item.id]
        if isinstance(item, ItemReference)
        else _stored(item.model_dump(exclude_none=True))
        for item in request.input
    ]


def _stored(item: Item) -> Item:
    content = item.get("content")
    if item["type"] == "message" and isinstance(content, str):
        item = {**item, "content": _parts(item["role"], content)}
    return {"id": new_item_id(item["type"]), **item}


def _message(role: str, text: str) -> Item:
    return {
        "id": new_item_id("message"), "type": "message", "role": role, "status": "completed",
        "content": _parts(role, text),
    }  # fmt: skip


def _parts(role: str, text: str) -> list[dict[str, Any]]:
    return [{"type": "output_text" if role == "assistant" else "input_text", "text": text}]
