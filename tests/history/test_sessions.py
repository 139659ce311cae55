"""Whole sessions: branches, forks, deletion, export and import."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat.conversation import Conversation, Message
from llmchat.engines import Finish
from llmchat.errors import UsageError
from llmchat.history import BranchWriter, History
from llmchat.history.export import EXPORTS, join_exports, to_html, to_json, to_markdown, to_training
from llmchat.history.imports import read
from llmchat.ui.branches import branches


@pytest.fixture
def history() -> History:
    return History(None)


def tell(history: History, *texts: str) -> str:
    """A session with questions and answers by turns."""
    session = history.begin("m")
    for index, text in enumerate(texts):
        BranchWriter(history, session).append(Message("assistant" if index % 2 else "user", text))
    return session


def count(history: History) -> int:
    return int(history._database.execute("SELECT count(*) FROM messages").fetchone()[0])


def test_a_fork_shares_what_was_said_and_goes_its_own_way(history: History) -> None:
    first = tell(history, "a", "b")
    second = BranchWriter(history, first).fork()
    BranchWriter(history, first).append(Message("user", "left"))
    BranchWriter(history, second).append(Message("user", "right"))
    assert [m.text for m in history.conversation(first).messages] == ["a", "b", "left"]
    assert [m.text for m in history.conversation(second).messages] == ["a", "b", "right"]
    assert count(history) == 4 and {one.turns for one in history.sessions()} == {2}


def test_deleting_keeps_what_others_share(history: History) -> None:
    first = tell(history, "a", "b")
    second = BranchWriter(history, first).fork()
    BranchWriter(history, first).append(Message("user", "left"))
    BranchWriter(history, second).append(Message("user", "right"))
    assert history.delete(first) == 1
    assert [m.text for m in history.conversation(second).messages] == ["a", "b", "right"]
    assert history.search("left") == [] and history.search("right")
    assert [hit.session for hit in history.search("a")] == [second], (
        "what is shared belongs to who shares it"
    )
    assert history.delete(second) == 3 and count(history) == 0, "nothing stays of what was deleted"


def test_deleting_takes_left_branches_along(history: History) -> None:
    session = tell(history, "a", "b")
    BranchWriter(history, session).rewind(1)
    BranchWriter(history, session).append(Message("assistant", "c"))
    assert history.delete(session) == 3 and count(history) == 0 and history.sessions() == []


def test_deleting_an_origin_and_a_fork_of_a_fork_together(history: History) -> None:
    first = tell(history, "a", "b")
    second = BranchWriter(history, first).fork()
    BranchWriter(history, second).append(Message("user", "c"))
    third = BranchWriter(history, second).fork()
    other = tell(history, "other")
    assert history.delete(first, second) == 0
    assert [m.text for m in history.conversation(third).messages] == ["a", "b", "c"]
    assert {hit.session for text in ("a", "b", "c") for hit in history.search(text)} == {third}
    assert history.delete(third) == 3 and [one.id for one in history.sessions()] == [other]


def test_alternatives_of_the_last_answer(history: History) -> None:
    session = tell(history, "q", "one")
    for text in ("two", "three"):
        BranchWriter(history, session).rewind(1)
        BranchWriter(history, session).append(Message("assistant", text))
    assert BranchWriter(history, session).alternative(-1) == (2, 3)
    assert history.conversation(session).messages[-1].text == "two"
    assert BranchWriter(history, session).alternative(-1) == (1, 3)
    with pytest.raises(UsageError, match="the first of 3 answers"):
        BranchWriter(history, session).alternative(-1)
    assert history.conversation(session).messages[-1].text == "one"
    with pytest.raises(UsageError, match="only one answer"):
        BranchWriter(history, tell(history, "q", "a")).alternative(1)


def test_a_tree_is_drawn_with_its_present_branch(history: History) -> None:
    session = tell(history, "q", "one")
    BranchWriter(history, session).rewind(1)
    BranchWriter(history, session).append(Message("assistant", "two"))
    BranchWriter(history, session).append(Message("user", "more"))
    records = history.messages(session)
    assert branches(history.tree(session), records[-1].id) == [
        "* user: q",
        "    assistant: one",
        "*   assistant: two",
        "*   user: more",
    ]


def test_marks_and_summaries_are_kept(history: History) -> None:
    session = tell(history, "a", "b")
    BranchWriter(history, session).append(Message("summary", "so far", covers=2))
    BranchWriter(history, session).mark(0, "pinned")
    assert history.conversation(session) == Conversation(
        (
            Message("user", "a", mark="pinned"),
            Message("assistant", "b"),
            Message("summary", "so far", covers=2),
        )
    )


def test_rename_tag_and_list_by_tag(history: History) -> None:
    session = tell(history, "a")
    tell(history, "b")
    history.rename(session, " a new title ")
    history.tag(session, ["work", "ai", "work"])
    (found,) = history.sessions(tag="work")
    assert found.id == session and found.title == "a new title" and found.tags == ("ai", "work")


def test_tokens_and_turns_stand_in_the_list(history: History) -> None:
    session = history.begin("m")
    BranchWriter(history, session).append(Message("user", "q"))
    BranchWriter(history, session).append(
        Message("assistant", "a"), Finish("stop", prompt_tokens=10, reply_tokens=5)
    )
    (found,) = history.sessions()
    assert (found.turns, found.tokens) == (1, 15)
    BranchWriter(history, session).rewind(0)
    assert history.find(session).turns == 0


def test_backup_is_a_whole_history(tmp_path: Path) -> None:
    with History(tmp_path / "a.db") as history:
        session = tell(history, "kept", "safe")
        history.backup(tmp_path / "b.db")
    with History(tmp_path / "b.db") as copy:
        assert [m.text for m in copy.conversation(session).messages] == ["kept", "safe"]
    assert (tmp_path / "b.db").stat().st_mode & 0o077 == 0


def test_what_was_deleted_is_not_in_the_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with History(path) as history:
        session = tell(history, "my secret word is xylophone")
        tell(history, "other")
        history.delete(session)
        history.shrink()
    assert b"xylophone" not in path.read_bytes()


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(texts, texts, st.sampled_from(["", "material"])), min_size=1, max_size=4),
    st.booleans(),
)
def test_json_out_in_and_out_is_the_same(turns: list[tuple[str, str, str]], summary: bool) -> None:
    history = History(None)
    session = history.begin("some model")
    BranchWriter(history, session).append(Message("system", "be kind"))
    for question, answer, material in turns:
        BranchWriter(history, session).append(Message("user", question, material, mark="pinned"))
        BranchWriter(history, session).append(Message("assistant", answer), Finish("cancelled"))
    if summary:
        BranchWriter(history, session).append(Message("summary", "so far", covers=2))
    first = to_json(history.find(session), history.messages(session))
    (chat,) = read(first, "x.json")
    other = History(None)
    taken = other.import_chat(chat)
    assert taken and to_json(other.find(taken), other.messages(taken)) == first
    assert other.import_chat(chat) is None, "twice is once"


def test_many_as_one_list_and_back(history: History) -> None:
    found = [history.find(tell(history, f"q{number}", "a")) for number in range(3)]
    text = join_exports("json", [to_json(one, history.messages(one.id)) for one in found])
    assert len(json.loads(text)) == 3 and len(read(text, "x")) == 3


def test_markdown_html_and_training(history: History) -> None:
    session = history.begin("m")
    for message, finish in (
        (Message("system", "old"), None),
        (Message("system", "be kind"), None),
        (Message("user", "<script>alert(1)</script> & **bold**", "a file"), None),
        (Message("assistant", "```python\nx = 1 < 2\n```"), Finish("stop")),
        (Message("user", "unanswered"), None),
        (Message("user", "stopped"), None),
        (Message("assistant", "half"), Finish("cancelled")),
    ):
        BranchWriter(history, session).append(message, finish)
    found, records = history.find(session), history.messages(session)
    page = to_html(found, records)
    assert (
        "<script>" not in page
        and "<strong>bold</strong>" in page
        and "x = 1 &lt; 2" in page
        and page.endswith("</html>\n")
    )
    assert "## assistant (cancelled)\n\nhalf\n" in to_markdown(found, records)
    assert json.loads(to_training(found, records)) == {
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "<script>alert(1)</script> & **bold**", "input": "a file"},
            {"role": "assistant", "content": "```python\nx = 1 < 2\n```"},
        ]
    }
    assert set(EXPORTS) == {"md", "json", "html", "jsonl"}
    other = History(None)
    taken = other.import_chat(read(to_training(found, records), "x.jsonl")[0]) or ""
    assert to_training(other.find(taken), other.messages(taken)) == to_training(found, records)


CHATGPT = [
    {
        "title": "A chat",
        "create_time": 1700000000.0,
        "current_node": "3",
        "mapping": {
            "0": {"message": None, "parent": None, "children": ["1"]},
            "1": {
                "message": {
                    "author": {"role": "user"},
                    "content": {"content_type": "text", "parts": ["Hello"]},
                    "create_time": 1700000001.0,
                },
                "parent": "0",
                "children": ["2", "3"],
            },
            "2": {
                "message": {
                    "author": {"role": "assistant"},
                    "content": {"content_type": "text", "parts": ["left"]},
                },
                "parent": "1",
                "children": [],
            },
            "3": {
                "message": {
                    "author": {"role": "assistant"},
                    "content": {"content_type": "text", "parts": ["Hi", {"asset": 1}]},
                },
                "parent": "1",
                "children": [],
            },
        },
    }
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (CHATGPT, [("user", "Hello"), ("assistant", "Hi\n")]),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            [("user", "a"), ("assistant", "b")],
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "be"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}]},
                ]
            },
            [("system", "be"), ("user", "a")],
        ),
        (
            [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
            [("user", "a"), ("assistant", "b")],
        ),
        ([{"instruction": "a", "input": "m", "output": "b"}], [("user", "a"), ("assistant", "b")]),
    ],
    ids=["chatgpt", "openai list", "openai object", "sharegpt", "alpaca"],
)  # fmt: skip
def test_what_can_be_read(value: object, said: list[tuple[str, str]]) -> None:
    (chat,) = read(json.dumps(value), "file.json")
    assert [(one.message.role, one.message.text) for one in chat.messages] == said
    records = value if isinstance(value, list) and "role" not in value[0] else [value]
    lines = "\n".join(json.dumps(record) for record in records * 2)
    assert [one.messages for one in read(lines, "file.jsonl")] == [chat.messages] * 2


def test_the_material_of_alpaca_is_kept() -> None:
    (chat,) = read('{"instruction": "a", "input": "m", "output": "b"}', "x")
    assert chat.messages[0].message == Message("user", "a", "m")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("not json", "x is not JSON"),
        ('{"a": 1}\nnot json', "line 2 is not JSON"),
        ('[{"what": 1}]', "record 1 is not a chat in a supported format"),
        (
            '[{"instruction": "a", "output": "b"}, {"instruction": "a"}]',
            "record 2 has no field `'output'`",
        ),
        ('{"messages": [{"role": "nobody", "content": "a"}]}', "record 1 cannot be read"),
        ("[]", "contains no chat"),
        ('{"conversations": [{"from": "human", "value": 3}]}', "record 1 cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_record(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        read(text, "x")
