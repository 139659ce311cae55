"""Task files: what they may say, and every mistake with its file and item."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.evaluate.matching import FOLDS, matches, normalise
from llmchat.evaluate.tasks import Item, read_tasks


def read(tmp_path: Path, *values: Any, as_list: bool = False, **how: Any) -> list[Item]:
    file = tmp_path / "quiz.jsonl"
    file.write_text(
        json.dumps(values) if as_list else "".join(f"{json.dumps(value)}\n\n" for value in values)
    )
    return read_tasks(make_world(tmp_path), str(file), **how)


@pytest.mark.parametrize("as_list", [False, True])
def test_every_kind_of_item(tmp_path: Path, as_list: bool) -> None:
    items = read(
        tmp_path,
        {"kind": "contains", "system": "Be short."},
        {"prompt": "Capital of France?", "answer": "Paris"},
        {
            "prompt": "Sum it up.",
            "input": "A letter.",
            "answer": ["one", "two"],
            "kind": "exact",
            "task": "sums",
            "system": "Be long.",
        },
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "2+2?"},
            ],
            "answer": 4,
        },
        {"prompt": "Pick.", "choices": ["a", "b"], "answer": 1},
        {"prompt": "Pick.", "choices": ["1", "0"], "answer": "0"},
        {"text": "Once upon a time."},
        as_list=as_list,
    )
    assert [(item.task, item.kind, item.number) for item in items] == [
        ("quiz", "contains", 1),
        ("sums", "exact", 2),
        ("quiz", "contains", 3),
        ("quiz", "choice", 4),
        ("quiz", "choice", 5),
        ("quiz", "perplexity", 6),
    ]
    assert items[0].messages == (
        Message("system", "Be short."),
        Message("user", "Capital of France?"),
    ) and items[0].answers == ("Paris",)
    assert items[1].messages == (
        Message("system", "Be long."),
        Message("user", "Sum it up.", "A letter."),
    ) and items[1].answers == (
        "one",
        "two",
    )
    assert len(items[2].messages) == 4 and items[2].answers == ("4",)
    assert (items[3].right, items[4].right) == (1, 1) and items[5].text == "Once upon a time."


def test_limit_takes_the_first_of_each_task_and_numbers_run_on(tmp_path: Path) -> None:
    values = [
        {"prompt": f"{task}{number}", "answer": "x", "task": task}
        for number in range(3)
        for task in "ab"
    ]
    items = read(tmp_path, *values, limit=2, before=10)
    assert [(item.task, item.number, item.messages[-1].text) for item in items] == [
        ("a", 11, "a0"),
        ("b", 12, "b0"),
        ("a", 13, "a1"),
        ("b", 14, "b1"),
    ]


GOOD = {"prompt": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"prompt": "q"}, "`answer` is missing"),
        (
            {"prompt": "q", "messages": [], "answer": "a"},
            "it needs a `prompt` or `messages`, one of them",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x"}], "answer": "a"},
            "the last message must be the user's",
        ),
        ({"prompt": "q", "answer": " "}, "an answer is empty"),
        (
            {"prompt": "q", "answer": "a", "kind": "exakt"},
            "Invalid enum value 'exakt' - at `$.kind`",
        ),
        ({"prompt": "q", "answer": "a", "promt": 1}, "Object contains unknown field `promt`"),
        (
            {"prompt": "q", "choices": ["a", "b"], "answer": 2},
            "the answer 2 is none of the 2 choices; it is one of their texts, or an index from 0",
        ),
        (
            {"prompt": "q", "choices": ["a", "a"], "answer": 0},
            "choice needs at least two different choices, none of them empty",
        ),
        ({"prompt": "q", "kind": "perplexity"}, "perplexity needs a `text`"),
        (
            {"prompt": "q", "answer": "a", "text": "t", "kind": "exact"},
            "`text` is for another kind than exact",
        ),
        ([1], "Expected `object`, got `array`"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_item(tmp_path: Path, bad: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, GOOD, bad)
    assert caught.value.message == f"{tmp_path}/quiz.jsonl, item 2 (line 3): {said}"


def test_what_is_no_json_and_what_is_empty(tmp_path: Path) -> None:
    world = make_world(tmp_path, stdin='{"prompt": ')
    with pytest.raises(UsageError, match=r"^-, line 1 is not valid JSON"):
        read_tasks(world, "-")
    with pytest.raises(UsageError, match="holds no items"):
        read(tmp_path, {"kind": "exact"})
    with pytest.raises(UsageError, match="unknown kind `exacts`"):
        read(tmp_path, GOOD, kind="exacts")
    with pytest.raises(UsageError, match="an answer is empty"):
        read(tmp_path, {"prompt": "q", "answer": "the"}, fold=("articles",))


def test_what_counts_as_the_same_answer() -> None:
    assert (
        normalise(" The  cat.\n") == "The  cat."
        and normalise(" The  «Cat»,\nan   ape.", FOLDS) == "cat ape"
    )
    assert (
        normalise("The theatre", ("articles",)) == "theatre"
        and normalise("cafe\u0301") == "caf\u00e9"
    )
    assert matches("exact", " Paris\n", ["Rome", "Paris"]) and not matches(
        "exact", "paris.", ["Paris"]
    )
    assert matches("exact", "paris.", ["Paris"], ("case", "punctuation")) and not matches(
        "exact", "In Paris", ["Paris"], FOLDS
    )
    assert matches("contains", "It is PARIS!", ["paris"], ("case",)) and not matches(
        "contains", "It is PARIS!", ["paris"]
    )
