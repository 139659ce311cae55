"""Vectors of tiny random encoders equal those of transformers, in batches of any lengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.embedders import (
    TEXTS,
    reference_scores,
    reference_vectors,
    save_cross_encoder,
    save_encoder,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from llmchat.engines.embedding_spec import EmbeddingSpec, RerankSpec
from llmchat.engines.transformers.embedding.embedder import TextEmbedder
from llmchat.engines.transformers.embedding.reranker import CrossEncoder
from llmchat.engines.transformers.embedding.texts import shares
from llmchat.errors import UsageError


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_equal_those_of_transformers(kind: str, pooling: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, kind)
    embedder = TextEmbedder(folder, EmbeddingSpec(32, 24, pooling), "tiny")  # type: ignore[arg-type]
    vectors = embedder.embed_passages(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference_vectors(folder, TEXTS, 24, pooling), atol=1e-5)


def test_dimensions_that_were_not_trained_are_refused(tmp_path: Path) -> None:
    embedder = TextEmbedder(save_encoder(tmp_path, "bert"), EmbeddingSpec(32, 24), "tiny")
    with pytest.raises(UsageError, match="vectors of 32 numbers, not 16"):
        embedder.embed(TEXTS, dimensions=16)


def test_a_cut_vector_has_length_1(tmp_path: Path) -> None:
    spec = EmbeddingSpec(32, 24, shortest=8)
    embedder = TextEmbedder(save_encoder(tmp_path, "bert"), spec, "tiny")
    whole, cut = embedder.embed(TEXTS), embedder.embed(TEXTS, dimensions=8)
    expected = torch.nn.functional.normalize(torch.tensor(whole[:, :8]), dim=-1)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_scores_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path, kind)
    passages = [*TEXTS[:2], TEXTS[3]]
    ours = CrossEncoder(folder, RerankSpec(24), "tiny")
    for question in ("what is the answer", "fox " * 30):
        expected = reference_scores(folder, question, passages)
        np.testing.assert_allclose(ours.scores(question, passages), expected, atol=1e-5)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 50))
def test_two_texts_are_cut_as_tokenizers_cut_them(first: int, second: int, room: int) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(room)
    pair = tokenizer.encode("a " * first, "a " * second)
    kept = [pair.sequence_ids.count(which) for which in (0, 1)]
    assert shares(first, second, room) == tuple(kept)
