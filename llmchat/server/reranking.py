"""POST /v1/rerank, in the form of Jina and Cohere.

https://jina.ai/reranker, https://docs.cohere.com/reference/rerank
"""

import uuid

from starlette.responses import Response

from llmchat.engines.capabilities import Reranks, unwrap
from llmchat.server.api import RerankRequest
from llmchat.server.errors import BadRequest
from llmchat.server.openai_format import encode_json
from llmchat.server.request_parsing import check_fields
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON


async def rerank(state: ServerState, request: RerankRequest, client: str) -> Response:
    """The documents with their scores, best first. Raises BadRequest for another kind of model."""
    check_fields(request)
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    async with state.pool.lease(request.model, client=client) as lease:
        engine = unwrap(lease.engine)
        if not isinstance(engine, Reranks):
            message = f"`{request.model}` is not a reranker"
            raise BadRequest(message, param="model", code="unsupported_model")
        scores, tokens = await state.prompt_workers.run(
            client, lease.deadline, lambda: engine.rerank(request.query, texts)
        )
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[: request.top_n]
    shown = bool(request.return_documents)
    results = [
        {"index": index, "relevance_score": scores[index]}
        | ({"document": {"text": texts[index]}} if shown else {})
        for index in order
    ]
    content = {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": request.model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(encode_json(content), media_type=JSON)
