"""Vectors of tiny random encoders equal those of transformers, in batches of any lengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.embedders import TEXTS, reference_vectors, save_encoder

from llmchat.engines.embedding_spec import EmbeddingSpec
from llmchat.engines.transformers.embedding.embedder import TextEmbedder
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
    whole, cut = embedder.embed(TEXTS)[0], embedder.embed(TEXTS, dimensions=8)[0]
    expected = torch.nn.functional.normalize(torch.tensor(whole[:, :8]), dim=-1)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
