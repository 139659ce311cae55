"""POST /v1/embeddings."""

from starlette.responses import Response

from llmchat.server.api import EmbeddingRequest
from llmchat.server.errors import BadRequest
from llmchat.server.state import State


async def embed(state: State, request: EmbeddingRequest, client: str) -> Response:
    """Raises BadRequest: a model that writes text is not made to embed it, and its hidden states would be poor embeddings."""
    async with state.pool.lease(request.model):
        raise BadRequest(f"`{request.model}` writes text and does not embed it", param="model", code="unsupported_model")
