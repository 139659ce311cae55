"""POST /v1/embeddings, for embedding models only: the hidden states of others embed text poorly."""

import base64
import struct
from collections.abc import Sequence

from starlette.responses import Response

from llmchat.engines.capabilities import Embeds, unwrap
from llmchat.errors import UsageError
from llmchat.server.api import EmbeddingRequest
from llmchat.server.errors import BadRequest, Unsupported
from llmchat.server.openai_format import encode_json
from llmchat.server.request_parsing import check_fields
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON


async def embed(state: ServerState, request: EmbeddingRequest, client: str) -> Response:
    """Raises BadRequest for a model that is not an embedding model, and for a number of dimensions
    that its vectors cannot be cut to."""
    check_fields(request)
    texts = [request.input] if isinstance(request.input, str) else request.input
    async with state.pool.lease(request.model, client=client) as lease:
        engine = unwrap(lease.engine)
        if not isinstance(engine, Embeds):
            message = f"`{request.model}` is not an embedding model"
            raise BadRequest(message, param="model", code="unsupported_model")
        try:
            vectors, tokens = await state.prompt_workers.run(
                client,
                lease.deadline,
                lambda: engine.embed(texts, request.input_type or "", request.dimensions or 0),
            )
        except UsageError as error:
            raise Unsupported(error.message, "dimensions") from error
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if request.encoding_format == "base64" else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    content = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return Response(encode_json(content), media_type=JSON)


def _base64(vector: Sequence[float]) -> str:
    """As 32-bit floats, little endian."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
