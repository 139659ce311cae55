"""Calls and results are messages of the tree, and survive an export and its import."""

import json

from llmchat.calls import Call
from llmchat.conversation import Message
from llmchat.history import BranchWriter, History
from llmchat.history.export import to_html, to_json, to_markdown, to_training
from llmchat.history.imports import read

CALL = Call("c1", "files_read", {"path": "ä.txt", "lines": [1, 2]}).as_openai()
TURN = (
    Message("user", "read it"),
    Message("assistant", "", calls=(CALL,)),
    Message("tool", "three lines", call_id="c1"),
    Message("assistant", "It has three lines."),
)


def stored(tmp_path) -> tuple[History, str]:
    history = History(tmp_path / "history.db")
    session = history.begin("m", {}, {})
    writer = BranchWriter(history, session)
    for message in TURN:
        writer.append(message)
    return history, session


def test_calls_and_results_are_read_as_they_were_stored(tmp_path):
    history, session = stored(tmp_path)
    assert BranchWriter(history, session).conversation.messages == TURN


def test_an_export_has_openai_messages(tmp_path):
    history, session = stored(tmp_path)
    exported = json.loads(to_json(history.find(session), history.messages(session)))
    call, result = exported["messages"][1:3]
    assert call["tool_calls"][0]["function"]["name"] == "files_read"
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {
        "path": "ä.txt",
        "lines": [1, 2],
    }
    assert (result["role"], result["tool_call_id"]) == ("tool", "c1")


def test_an_import_restores_calls_and_results(tmp_path):
    history, session = stored(tmp_path)
    text = to_json(history.find(session), history.messages(session))
    (chat,) = read(text, "export.json")
    assert tuple(one.message for one in chat.messages) == TURN


def test_a_page_for_people_shows_calls_and_results_as_code(tmp_path):
    history, session = stored(tmp_path)
    records = history.messages(session)
    markdown = to_markdown(history.find(session), records)
    assert "`files_read`\n\n```\n{" in markdown and "```\nthree lines\n```" in markdown
    assert "<code>three lines" in to_html(history.find(session), records)


def test_a_fence_in_a_result_does_not_end_its_block(tmp_path):
    history, session = stored(tmp_path)
    BranchWriter(history, session).append(Message("tool", "````\n<b>", call_id="c1"))
    assert "`````\n````\n<b>\n`````" in to_markdown(
        history.find(session), history.messages(session)
    )


def test_a_turn_with_a_call_is_not_training_data(tmp_path):
    history, session = stored(tmp_path)
    writer = BranchWriter(history, session)
    for message in (Message("user", "more"), Message("assistant", "Yes.")):
        writer.append(message)
    line = json.loads(to_training(history.find(session), history.messages(session)))
    assert [one["content"] for one in line["messages"]] == ["more", "Yes."]


def test_a_result_without_a_call_is_left_out():
    text = json.dumps([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}])
    (chat,) = read(text, "x.json")
    assert [one.message.role for one in chat.messages] == ["user"]
