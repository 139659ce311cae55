"""The retrieval benchmark: its questions, and its measures."""

import re
import shutil
from pathlib import Path

import pytest
import retrieval_corpus
import retrieval_questions
from retrieval_questions import (
    Found,
    Question,
    anchor_spans,
    answers,
    first_rank,
    fused,
    mean_reciprocal_rank,
    recall,
)

ASKED = Question("How?", "a.txt", "one two")
QUESTIONS = retrieval_questions.load()


def test_anchor_is_found_across_line_breaks_and_in_every_place():
    text = "One. one\n    two, three; one two."
    assert [text[start:end] for start, end in anchor_spans(text, "one two")] == [
        "one\n    two",
        "one two",
    ]
    assert anchor_spans("a.c", "a.c") and not anchor_spans("abc", "a.c")


@pytest.mark.parametrize(
    ("found", "right"),
    [
        (Found("a.txt", 0, 100), True),
        (Found("a.txt", 14, 100), True),
        (Found("a.txt", 16, 100), False),
        (Found("b.txt", 0, 100), False),
    ],
)
def test_passage_answers_with_half_of_the_anchor(found, right):
    assert answers(found, ASKED, [(10, 18)]) is right


def test_measures_of_known_ranks():
    spans = [(10, 18)]
    right, wrong = Found("a.txt", 0, 20), Found("a.txt", 30, 50)
    assert first_rank([wrong, wrong, right, right], ASKED, spans) == 3
    assert first_rank([wrong], ASKED, spans) is None
    ranks = [1, 2, 4, None, 11]
    assert [recall(ranks, most) for most in (1, 3, 10)] == [0.2, 0.4, 0.6]
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 4) / 5)


def test_fusion_prefers_what_both_rankings_found():
    one, two, three = (Found("a.txt", place, place + 1) for place in range(3))
    assert fused([[one, two], [three, two]], 60, [1, 1]) == [two, one, three]
    assert fused([[one, two], [three, two]], 60, [1, 3]) == [two, three, one]
    assert fused([[one, two], [three]], 60, [1, 0]) == [one, two, three]


def test_set_is_complete():
    asked = [*QUESTIONS.question, *QUESTIONS.foreign]
    assert (len(QUESTIONS.question), len(QUESTIONS.foreign)) == (150, 15)
    assert sum(bool(one.answer) for one in QUESTIONS.question) == 40
    assert len(QUESTIONS.without_answer.questions) == 15
    assert len({one.ask for one in asked}) == len({one.anchor for one in asked}) == 165
    assert {one.document for one in asked} <= set(retrieval_corpus.sources())
    assert all(re.compile(one.answer) for one in QUESTIONS.question)


def test_questions_use_other_words_than_their_anchors():
    shared = [len(_words(one.ask) & _words(one.anchor)) for one in QUESTIONS.question]
    assert sum(shared) / len(shared) < 0.3
    assert max(shared) <= 2


def _words(text: str) -> set[str]:
    """Words of four letters and more: shorter ones are mostly not about anything."""
    return set(re.findall(r"[a-z]{4,}", text.lower()))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs Debian's packages")
def test_every_anchor_is_in_its_document(tmp_path: Path):
    retrieval_corpus.write_corpus(tmp_path)
    for one in [*QUESTIONS.question, *QUESTIONS.foreign]:
        assert anchor_spans((tmp_path / one.document).read_text("utf-8"), one.anchor), one


def test_quoting_question_is_the_beginning_of_its_anchor():
    (one,) = retrieval_questions.quoting(
        [Question("How?", "a.txt", "one two three four five six 7")]
    )
    assert (one.ask, one.document) == ("one two three four five six", "a.txt")


def test_restricted_set_keeps_what_its_documents_answer():
    part = retrieval_questions.restricted(QUESTIONS, {"man1/du.1.txt"})
    assert {one.document for one in part.question} == {"man1/du.1.txt"}
    assert part.without_answer == QUESTIONS.without_answer and not part.foreign
