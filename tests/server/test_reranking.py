"""POST /v1/rerank: the documents in order, in the form of Jina and Cohere."""

from pathlib import Path

import pytest
from support.embedders import save_cross_encoder
from support.serving import model_spec, serving

from llmchat.engines.embedding_spec import RerankSpec
from llmchat.engines.transformers.embedding.engine import RerankEngine

DOCUMENTS = ["the lazy dog", "the answer is here", "a"]


def test_documents_come_back_in_order(tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path / "cross", "bert")
    engine = RerankEngine(folder, RerankSpec(64), "tiny")
    scores, _ = engine.rerank("what is the answer", DOCUMENTS)
    best = sorted(range(3), key=lambda index: -scores[index])
    asked = {"model": "cross", "query": "what is the answer", "documents": DOCUMENTS}
    with serving({"cross": model_spec(lambda: engine)}, tmp_path, budget=10**9) as run:
        answer = run.http.post("/v1/rerank", json=asked).json()
        assert [one["index"] for one in answer["results"]] == best
        assert answer["results"][0]["relevance_score"] == pytest.approx(scores[best[0]], abs=1e-6)
        assert "document" not in answer["results"][0] and answer["usage"]["total_tokens"] > 20
        more = {"top_n": 1, "return_documents": True, "documents": [{"text": t} for t in DOCUMENTS]}
        short = run.http.post("/v1/rerank", json=asked | more).json()["results"]
        assert [one["document"]["text"] for one in short] == [DOCUMENTS[best[0]]]


def test_invalid_requests_name_the_field(tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path / "cross", "bert")
    spec = model_spec(lambda: RerankEngine(folder, RerankSpec(64), "tiny"))
    asked = {"model": "cross", "query": "x", "documents": ["a"]}
    with serving({"cross": spec}, tmp_path, budget=10**9) as run:
        for wrong, words in (
            ({"documents": []}, "documents"),
            ({"top_n": 0}, "top_n"),
            ({"rank_fields": ["x"]}, "`rank_fields` is not supported"),
        ):
            answer = run.http.post("/v1/rerank", json=asked | wrong)
            assert answer.status_code == 400 and words in answer.text
        embedding = {"model": "cross", "input": "x"}
        answer = run.http.post("/v1/embeddings", json=embedding)
        assert answer.status_code == 400 and "not an embedding model" in answer.text
