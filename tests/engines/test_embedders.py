"""Vectors of tiny random encoders equal those of transformers, in batches of any lengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.embedders import (
    TEXTS,
    publish_nomic,
    reference_scores,
    reference_vectors,
    save_cross_encoder,
    save_encoder,
    save_sentence_transformer,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from llmchat.engines.embedding_spec import EmbeddingSpec, RerankSpec
from llmchat.engines.transformers.embedding.architectures import open_encoder
from llmchat.engines.transformers.embedding.embedder import TextEmbedder
from llmchat.engines.transformers.embedding.encoder import Encoder
from llmchat.engines.transformers.embedding.folder_spec import spec_of_folder
from llmchat.engines.transformers.embedding.modules import ModulesEncoder
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.reranker import CrossEncoder
from llmchat.engines.transformers.embedding.texts import shares
from llmchat.errors import IntegrityError, UsageError

# The last one has no blocks of ours.
KINDS = ["bert", "xlm-roberta", "nomic_bert", "qwen3", "gemma3_text", "mpnet"]


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_ours_run_what_they_can(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder(save_encoder(tmp_path, kind))
    assert isinstance(encoder, ModulesEncoder if kind == "mpnet" else Encoder)


def test_the_published_config_keys_of_nomic_are_read(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "nomic_bert")
    spec = EmbeddingSpec(32, 24)
    expected = TextEmbedder(folder, spec, "tiny").embed_passages(TEXTS)
    publish_nomic(folder)
    assert isinstance(open_encoder(folder), Encoder)
    vectors = TextEmbedder(folder, spec, "tiny").embed_passages(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_layer_norm_can_precede_the_cut(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "nomic_bert")
    plain = TextEmbedder(folder, EmbeddingSpec(32, 24, normalise=False), "tiny").embed(TEXTS)
    spec = EmbeddingSpec(32, 24, shortest=8, norm_before_cut=True)
    cut = TextEmbedder(folder, spec, "tiny").embed(TEXTS, dimensions=8)
    normed = torch.nn.functional.layer_norm(torch.tensor(plain), (32,))[:, :8]
    expected = torch.nn.functional.normalize(normed, dim=-1)
    np.testing.assert_allclose(cut, expected, atol=1e-5)


def test_an_ending_is_appended_once_and_counted(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "qwen3")
    spec = EmbeddingSpec(32, 24, "last", ends_with="<s>")
    embedder = TextEmbedder(folder, spec, "tiny")
    rows = embedder.encode(["fox", "fox " * 50])
    assert [row[-1] for row in rows] == [1, 1] and len(rows[1]) == 24
    assert embedder.longest == 21
    own = TextEmbedder(folder, EmbeddingSpec(32, 24, "last", ends_with="</s>"), "tiny")
    assert own.encode(["fox"]) == TextEmbedder(folder, EmbeddingSpec(32, 24), "x").encode(["fox"])
    with pytest.raises(IntegrityError, match="no token `<nowhere>`"):
        TextEmbedder(folder, EmbeddingSpec(32, 24, ends_with="<nowhere>"), "tiny")


def test_what_a_folder_names_is_used_without_a_preset(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path)
    spec = spec_of_folder(folder)
    assert spec == EmbeddingSpec(16, 24, "cls", query="ask: ", passage="read: ", dense=("2_Dense",))
    vectors = TextEmbedder(folder, spec, "tiny").embed_passages(TEXTS)
    hidden = reference_vectors(folder, [f"read: {text}" for text in TEXTS], 24, "cls", unit=False)
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    projected = (hidden @ dense["linear.weight"].T + dense["linear.bias"]).tanh()
    expected = torch.nn.functional.normalize(projected, dim=-1)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.slow
def test_vectors_equal_those_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = save_sentence_transformer(tmp_path)
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = TextEmbedder(folder, spec_of_folder(folder), "tiny")
    texts = [text for text in TEXTS if text]
    expected = theirs.encode(texts, prompt_name="query")
    np.testing.assert_allclose(ours.embed_questions(texts), expected, atol=1e-5)


@pytest.mark.parametrize("lengths", [(1,), (9, 9), (64,), (65,), (130, 7, 50), (128, 128)])
def test_row_counts_are_rounded_to_few_sizes(lengths: tuple[int, ...]) -> None:
    """Each number of rows that oneDNN sees costs memory for good."""
    packed = Packed.of([range(1, length + 1) for length in lengths])
    rows = len(packed.ids)
    assert rows % (8 if rows <= 64 else 64) == 0 and 0 <= rows - packed.size < 64
    assert packed.ids[: packed.size].tolist() == [i + 1 for n in lengths for i in range(n)]
    assert packed.ids[packed.size :].count_nonzero() == 0 and len(packed.positions) == rows
    x = torch.randn(rows, 2, 3)
    back = packed.flat(packed.padded(x))
    assert torch.equal(back[: packed.size], x.flatten(1)[: packed.size])
    assert len(back) == rows and back[packed.size :].count_nonzero() == 0
