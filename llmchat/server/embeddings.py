"""POST /v1/embeddings: for models that were made to embed text. The hidden states of others would be poor embeddings, so they are refused."""

import base64
import struct
from collections.abc import Sequence

from starlette.responses import Response

from llmchat.engines.capabilities import Embeds, unwrap
from llmchat.server.api import EmbeddingRequest
from llmchat.server.errors import BadRequest
from llmchat.server.openai_format import encode_json
from llmchat.server.request_parsing import check_fields
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON


async def embed(state: ServerState, request: EmbeddingRequest, client: str) -> Response:
    """Raises BadRequest for a model that writes text, and for a number of dimensions that is not the model's own."""
    check_fields(request)
    texts = [request.input] if isinstance(request.input, str) else request.input
    async with state.pool.lease(request.model, client=client) as lease:
        engine = unwrap(lease.engine)
        if not isinstance(engine, Embeds):
            raise BadRequest(
                f"`{request.model}` writes text and does not embed it",
                param="model",
                code="unsupported_model",
            )
        if request.dimensions not in (None, engine.dimensions):
            raise BadRequest(
                f"`{request.model}` has {engine.dimensions} dimensions",
                param="dimensions",
                code="unsupported_parameter",
            )
        vectors, tokens = await state.prompt_workers.run(
            client, lease.deadline, lambda: engine.embed(texts)
        )
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if request.encoding_format == "base64" else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Response(
        encode_json({"object": "list", "data": data, "model": request.model, "usage": usage}),
        media_type=JSON,
    )


def _base64(vector: Sequence[float]) -> str:
    """32-bit floats, little endian."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
