"""Facts of the user: their file, and the block that chats are given."""

from pathlib import Path

import pytest

from llmchat.conversation import Conversation
from llmchat.errors import IntegrityError, LlmchatError, UsageError
from llmchat.memory.facts import LONGEST, Facts
from llmchat.memory.of_chat import HEADING, MOST_CHARACTERS, ChatMemory, block, fitting


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return Facts(tmp_path / "data" / "memory.sqlite", lambda: 100.0)


def texts(facts: Facts) -> list[str]:
    return [fact.text for fact in facts.all()]


def test_a_fact_is_one_line_and_kept_once(facts: Facts) -> None:
    first = facts.add("  I live\nin Graz ")
    assert first.text == "I live in Graz"
    assert facts.add("I live in Graz") == first
    assert texts(Facts(facts.path)) == ["I live in Graz"]


def test_reading_an_empty_memory_makes_no_file(facts: Facts) -> None:
    assert facts.all() == []
    assert not facts.path.exists()


def test_only_the_owner_may_read_the_file(facts: Facts) -> None:
    facts.add("secret")
    assert facts.path.stat().st_mode & 0o077 == 0


def test_a_number_is_never_used_again(facts: Facts) -> None:
    facts.add("one")
    two = facts.add("two")
    facts.remove(two.id)
    assert facts.add("three").id > two.id


def test_a_removed_or_changed_fact_leaves_the_file(facts: Facts) -> None:
    kept, gone = facts.add("the first secret"), facts.add("the second secret")
    facts.remove(gone.id)
    facts.edit(kept.id, "now public")
    assert texts(facts) == ["now public"]
    left = b"".join(path.read_bytes() for path in facts.path.parent.iterdir())
    assert b"secret" not in left


def test_several_are_removed_or_none(facts: Facts) -> None:
    one = facts.add("one")
    with pytest.raises(UsageError, match="there is no fact 9"):
        facts.remove(one.id, 9)
    assert texts(facts) == ["one"]


def test_a_fact_cannot_become_a_twin(facts: Facts) -> None:
    facts.add("one")
    two = facts.add("two")
    with pytest.raises(UsageError, match="`one` is known already"):
        facts.edit(two.id, "one")


@pytest.mark.parametrize("text", ["", " \n ", "x" * (LONGEST + 1)])
def test_empty_and_long_texts_are_refused(facts: Facts, text: str) -> None:
    with pytest.raises(UsageError):
        facts.add(text)
    assert not facts.path.exists()


def test_search_prefers_the_fact_with_most_words(facts: Facts) -> None:
    for text in ("I like tea", "My sister Eva likes green tea", "I live in Graz"):
        facts.add(text)
    assert [fact.text for fact in facts.search("green TEA?")] == [
        "My sister Eva likes green tea",
        "I like tea",
    ]
    assert facts.search("rocket") == []
    assert [fact.text for fact in facts.search("", limit=1)] == ["I live in Graz"]


def test_a_file_that_is_not_a_memory_is_one_clear_error(facts: Facts) -> None:
    facts.path.parent.mkdir()
    facts.path.write_bytes(b"not a database, but long enough to be read as the head of one" * 20)
    with pytest.raises(IntegrityError, match="is not a readable memory"):
        facts.all()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(LlmchatError, match="cannot be opened"):
        Facts(tmp_path / "data" / "memory.sqlite").add("x")


def test_the_block_is_sent_with_the_conversation_and_not_stored(facts: Facts) -> None:
    facts.add("I live in Graz")
    said = Conversation().instruct("Be brief.").say("hello")
    asked = ChatMemory(facts, "on").added_to(said)
    assert asked.memory == f"{HEADING}\n- I live in Graz"
    assert asked.system == "Be brief."
    assert asked.spoken == said.spoken
    assert said.memory == ""


def test_a_chat_reads_the_facts_when_it_begins(facts: Facts) -> None:
    memory = ChatMemory(facts, "on")
    facts.add("I live in Graz")
    assert memory.block == ""
    memory.begin()
    assert "Graz" in memory.block
    memory.switch("off")
    assert memory.added_to(Conversation().say("x")).memory == ""


def test_the_newest_facts_that_fit_are_sent(facts: Facts) -> None:
    for number in range(12):
        facts.add(f"{number} " + "x" * 190)
    kept = fitting(facts.all())
    assert [fact.text.split()[0] for fact in kept] == list(map(str, range(2, 12)))
    assert len(block(kept)) <= MOST_CHARACTERS + len(HEADING) + 1
    assert block([]) == ""
