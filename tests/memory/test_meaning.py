"""An index with vectors finds by meaning, and holds the vectors of one embedder only."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.word_embedders import WordEmbedder

from llmchat.errors import Mismatch, UsageError
from llmchat.memory.index import Index
from llmchat.memory.readers import Document
from llmchat.memory.searching import fused
from llmchat.memory.vectors import Matrix

EMBEDDER = WordEmbedder(groups=["cat feline", "car automobile"])
DOCUMENTS = [
    Document("pets", "a feline at home"),
    Document("cars", "an automobile on the road"),
    Document("tools", "a cat prints a file"),
]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "a.sqlite", create=True) as opened:
        opened.add(DOCUMENTS, EMBEDDER)
        yield opened


def sources(index: Index, question: str, **options: object) -> list[str]:
    return [one.passage.source for one in index.search(question, **options)]  # type: ignore[arg-type]


def test_other_words_of_the_same_meaning_are_found(index: Index) -> None:
    assert sources(index, "car", embedder=EMBEDDER, mode="words") == []
    hit = index.search("car", embedder=EMBEDDER, mode="meaning")[0]
    assert hit.passage.source == "cars" and 0 < hit.score <= 1


def test_the_score_by_meaning_is_the_cosine(index: Index) -> None:
    (hit,) = index.search("a feline at home", 1, EMBEDDER, mode="meaning")
    assert hit.score == pytest.approx(1, abs=1e-6)


def test_hybrid_fuses_both_rankings(index: Index) -> None:
    assert sources(index, "cat", embedder=EMBEDDER)[0] == "tools"
    assert set(sources(index, "cat", embedder=EMBEDDER)) == {"pets", "cars", "tools"}
    assert fused([[(1, 9.0), (2, 8.0)], [(2, 0.5)]]) == [(2, 1 / 7 + 1 / 6), (1, 1 / 6)]


def test_hybrid_without_an_embedder_is_by_words(index: Index) -> None:
    assert sources(index, "cat") == ["tools"]
    with pytest.raises(UsageError, match="requires an embedder"):
        index.search("cat", mode="meaning")


def test_what_is_added_later_is_found_at_once(index: Index) -> None:
    sources(index, "car", embedder=EMBEDDER)
    index.add([Document("new", "a fast car")], EMBEDDER)
    assert "new" in sources(index, "car", embedder=EMBEDDER, mode="meaning")[:1]
    index.remove("new")
    assert "new" not in sources(index, "car", embedder=EMBEDDER, mode="meaning")


def test_what_another_process_adds_is_found(index: Index, tmp_path: Path) -> None:
    sources(index, "car", embedder=EMBEDDER)
    with Index.open(tmp_path / "a.sqlite") as other:
        other.add([Document("new", "a fast car")], EMBEDDER)
    assert sources(index, "car", embedder=EMBEDDER, mode="meaning")[0] == "new"


@pytest.mark.parametrize("other", [WordEmbedder("words", 16), WordEmbedder("other")])
def test_another_embedder_is_refused_and_nothing_changes(index: Index, other: WordEmbedder) -> None:
    with pytest.raises(Mismatch, match=r"the vectors of a are from words \(32 numbers\)"):
        index.add([Document("new", "text")], other)
    with pytest.raises(Mismatch):
        index.search("text", embedder=other)
    assert len(index.documents()) == 3 and index.embedder == "words"


def test_an_embedder_can_be_replaced(index: Index) -> None:
    other = WordEmbedder("other", 16)
    index.forget_vectors()
    index.update(embedder=other)
    assert (index.embedder, index.width) == ("other", 16)
    assert sources(index, "feline", embedder=other, mode="meaning")[0] == "pets"


def test_an_index_of_words_takes_vectors_later(tmp_path: Path) -> None:
    with Index.open(tmp_path / "b.sqlite", create=True) as index:
        index.add(DOCUMENTS)
        with pytest.raises(UsageError, match="the index b has no vectors"):
            index.search("car", embedder=EMBEDDER, mode="meaning")
        assert sources(index, "automobile", embedder=EMBEDDER) == ["cars"]
        assert index.update(embedder=EMBEDDER).read == 0
        assert sources(index, "car", embedder=EMBEDDER, mode="meaning")[0] == "cars"


def test_only_what_is_new_is_embedded(index: Index, tmp_path: Path) -> None:
    embedder = WordEmbedder()
    index.add([*DOCUMENTS, Document("new", "one"), Document("pets", "changed")], embedder)
    assert embedder.embedded == 2


def test_the_nearest_vectors_are_those_of_a_full_sort(tmp_path: Path) -> None:
    embedder = WordEmbedder(width=8)
    with Index.open(tmp_path / "c.sqlite", create=True) as index:
        index.add([Document(f"{n}", f"w{n} w{n % 7} w{n % 3}") for n in range(300)], embedder)
        matrix = Matrix(index._database, 8)
        vector = embedder.embed_questions(["w1 w2"])[0]
        scores = matrix.rows @ vector
        expected = np.argsort(-scores, kind="stable")[:20]
        assert [number for number, _ in matrix.nearest(vector, 20)] == list(
            matrix.numbers[expected]
        )
        assert len(matrix.nearest(vector, 1000)) == 300


class LongestFirst:
    """A reranker that prefers long passages."""

    name = "longest"

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        return [float(len(one)) for one in passages]


def test_a_reranker_orders_the_candidates(index: Index) -> None:
    hits = index.search("cat", 2, EMBEDDER, LongestFirst())
    assert [one.passage.source for one in hits] == ["cars", "tools"]
    assert hits[0].score == len("an automobile on the road")
