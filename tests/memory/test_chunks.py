"""Passages follow the structure of a document, and lose nothing of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.memory.chunks import chunks, estimated_tokens
from llmchat.memory.readers import Document, Section, read_document


def words(text: str) -> int:
    return len(text.split())


def lines(count: int, each: int = 5) -> str:
    return "\n".join(f"{number} " + "w " * (each - 2) + "end." for number in range(count))


def test_a_short_text_is_one_passage() -> None:
    (passage,) = chunks(Document("a.txt", "\n  one two\n\nthree\n"), words, 10, 2)
    assert (passage.text, passage.start, passage.end) == ("  one two\n\nthree", 1, 17)


def test_a_passage_ends_with_a_paragraph() -> None:
    text = "a b c d e f\n\ng h i j\n\nk l m n o"
    assert [one.text for one in chunks(Document("a", text), words, 10, 0)] == [
        "a b c d e f\n\ng h i j",
        "k l m n o",
    ]


def test_consecutive_passages_overlap_by_whole_sentences() -> None:
    text = "One two three. Four five. Six seven eight. Nine ten. Eleven twelve."
    found = [one.text for one in chunks(Document("a", text), words, 8, 3)]
    assert found == [
        "One two three. Four five. Six seven eight.",
        "Six seven eight. Nine ten. Eleven twelve.",
    ]


def test_a_passage_stays_within_a_section() -> None:
    text = "# One\n" + lines(4) + "\n# Two\n" + lines(4)
    found = chunks(read_document(text.encode(), "a.md"), words, 30, 5)
    assert [(one.heading, one.text.splitlines()[0]) for one in found] == [
        ("One", "# One"),
        ("Two", "# Two"),
    ]


def test_a_lone_heading_joins_what_follows() -> None:
    text = "# Book\n\n## First chapter\n\n" + lines(6)
    (passage,) = chunks(read_document(text.encode(), "a.md"), words, 40, 5)
    assert passage.heading == "Book > First chapter" and passage.text.startswith("# Book")


@pytest.mark.parametrize("text", ["x" * 50_000, "字" * 5_000, "a\t" * 20_000, "\n" * 9_000])
def test_a_text_without_places_to_cut_is_cut_within_the_limit(text: str) -> None:
    found = chunks(Document("a", text), estimated_tokens, 64, 8)
    assert all(estimated_tokens(one.text) <= 64 for one in found)
    assert covered(text, found)


@given(
    st.lists(
        st.sampled_from(["a", "bb", "\n", "\n\n", ". ", " ", "# h\n", "字", "!"]), max_size=200
    ),
    st.integers(2, 30),
    st.data(),
)
def test_every_character_is_in_a_passage_and_none_is_too_long(
    parts: list[str], longest: int, data: st.DataObject
) -> None:
    text = "".join(parts)
    overlap = data.draw(st.integers(0, longest // 2))
    document = read_document(text.encode(), "a.md")
    found = chunks(document, estimated_tokens, longest, overlap)
    assert covered(document.text, found)
    assert all(estimated_tokens(one.text) <= longest for one in found)
    assert all(document.text[one.start : one.end] == one.text for one in found)


def covered(text: str, found: list) -> bool:
    """Whether everything but white space is in a passage."""
    outside = list(text)
    for one in found:
        outside[one.start : one.end] = [" "] * (one.end - one.start)
    return not "".join(outside).strip()


def test_sections_of_a_document_are_its_parts() -> None:
    assert Document("a", "abc").parts == (Section(0, 3),)


def test_tokens_are_estimated_from_words_and_characters() -> None:
    assert estimated_tokens("a cat") == 2
    assert estimated_tokens("internationalisation") == 4
    assert estimated_tokens("日本語") == 3


def test_a_long_line_of_words_is_counted_few_times() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    found = chunks(Document("a", "word " * 20_000), count, 100, 0)
    assert len(found) <= 220 and len(counted) < 20_000 / 4
