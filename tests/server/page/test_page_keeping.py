"""Storing conversations: in the browser or on the server, in two windows, and without space."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site, User, expect

pytestmark = pytest.mark.slow


def exported(user: User) -> list[dict[str, Any]]:
    """All conversations, as the user can save them."""
    with user.page.expect_download() as download:
        user.button("Export all").click()
    value: list[dict[str, Any]] = json.loads(Path(download.value.path()).read_text("utf-8"))[
        "conversations"
    ]
    return value


@pytest.mark.parametrize("place", ["site", "keeping_site"])
def test_a_reload_during_an_answer_loses_nothing(
    place: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(place)
    site.script.answers += [["This is an answer."], ["Half of", threading.Event()]]
    user = site.visit()
    user.ask("Before")
    user.page.locator("#model").select_option("org/large")
    user.send("Now")
    expect(user.answer).to_have_text("Half of")
    user.type("not sent yet")
    user.reload()
    user.sees("Before", "This is an answer.", "Now", "Half of")
    expect(user.note).to_contain_text("Interrupted.")
    assert user.find("#input").input_value() == "not sent yet"
    assert user.find("#model").input_value() == "org/large"
    assert site.script.gone.wait(30)


def test_rename_delete_export_import(site: Site, tmp_path: Path) -> None:
    user = site.visit()
    user.ask("Hello <there>")
    user.choose("Hello <there>", "Rename")
    user.page.get_by_label("New title").fill("Greetings")
    user.page.get_by_label("New title").press("Enter")
    expect(user.button("Greetings")).to_be_focused()
    with user.page.expect_download() as download:
        user.choose("Greetings", "Export as JSON")
    assert download.value.suggested_filename == "Greetings.json"
    file = tmp_path / "chat.json"
    download.value.save_as(file)
    assert json.loads(file.read_text("utf-8"))["conversations"][0]["title"] == "Greetings"
    user.choose("Greetings", "Delete")
    expect(user.find("#conversations li")).to_have_count(0)
    user.button("Undo").click()
    expect(user.find("#conversations li")).to_have_count(1)
    other = site.visit()
    with other.page.expect_file_chooser() as chooser:
        other.button("Import").click()
    chooser.value.set_files(file)
    other.button("Greetings").click()
    other.sees("Hello <there>", "This is an answer.")
    with other.page.expect_file_chooser() as chooser:
        other.button("Import").click()
    chooser.value.set_files(
        {
            "name": "bad.json",
            "mimeType": "application/json",
            "buffer": b'{"llmchat": "conversations", "conversations": [{}]}',
        }
    )
    expect(other.find(".notice.problem")).to_contain_text("Import failed")
    assert other.titles == ["Greetings"]


A, B = "a" * 24, "b" * 24
GOOD = {
    "format": 1, "id": "0" * 24, "title": "t", "model": "m", "adapter": "", "strength": 1,
    "parameters": {}, "chosen": {},
    "messages": {
        A: {"id": A, "parent": "", "role": "user", "text": "x"},
        B: {"id": B, "parent": A, "role": "assistant", "text": "y"},
    },
}  # fmt: skip


def message(which: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, "messages": {**GOOD["messages"], which: {**GOOD["messages"][which], **changes}}}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (GOOD, ""),
        ({**GOOD, "id": "../../x", "chosen": {A: "nowhere"}, "unknown": 1}, ""),
        ({**GOOD, "format": 2}, "invalid conversation"),
        ({**GOOD, "messages": None}, "invalid conversation"),
        ({**GOOD, "strength": "1"}, 'invalid "strength"'),
        (message(A, parent=B), "cycle"),
        (message(A, parent="c" * 24), "no parent"),
        (message(A, parent="__proto__"), "no parent"),
        (message(B, role="system"), "invalid message"),
        (message(B, text=["y"]), "invalid message"),
        (message(B, id=A), "invalid message"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_imported_file_is_validated(site: Site, value: dict[str, Any], problem: str) -> None:
    user = site.visit()
    checked = (
        "(value) => import('./page/conversation.js').then(({checked}) => checked(value))"
        ".then((good) => [good], (error) => error.message)"
    )
    answer = user.page.evaluate(checked, value)
    if problem:
        assert problem in answer
    else:
        assert (
            len(answer[0]["id"]) == 24 and answer[0]["chosen"] == {} and "unknown" not in answer[0]
        )
        assert {id: message["text"] for id, message in answer[0]["messages"].items()} == {
            A: "x",
            B: "y",
        }


def test_changes_by_two_windows_merge_to_the_same_conversation(site: Site) -> None:
    user = site.visit()
    made = """() => import('./page/conversation.js').then(({create, add, merge, path}) => {
        const one = create();
        const question = add(one, '', 'user', {text: 'q'});
        const answer = add(one, question.id, 'assistant', {text: 'half', state: 'writing'});
        const other = structuredClone(one);
        const finished = {text: 'half and whole', state: 'complete', revision: 2};
        Object.assign(one.messages[answer.id], finished);
        add(other, question.id, 'assistant', {text: 'second'});
        const [left, right] = [structuredClone(one), structuredClone(other)];
        merge(left, other);
        merge(right, one);
        const texts = ({messages}) =>
            Object.values(messages).map(({text, state}) => text + ' ' + state).sort();
        return [texts(left), texts(right)];
    })"""
    left, right = user.page.evaluate(made)
    assert left == right == ["half and whole complete", "q complete", "second complete"]


def test_full_storage_is_reported_and_the_chat_continues(site: Site) -> None:
    user = site.visit()
    user.page.evaluate(
        "void (IDBObjectStore.prototype.put = () => "
        "{ throw new DOMException('full', 'QuotaExceededError'); })"
    )
    user.ask("Hello")
    expect(user.find(".notice.problem")).to_contain_text("storage is full")
    user.ask("Still there?")
    user.sees("Hello", "This is an answer.", "Still there?", "This is an answer.")
    user.faults.clear()


@pytest.mark.parametrize("place", ["site", "keeping_site"])
def test_two_windows_do_not_overwrite_each_other(
    place: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(place)
    one = site.visit()
    one.ask("Start")
    gates = threading.Event(), threading.Event()
    site.script.answers += [["To one", gates[0], "."], ["To the other", gates[1], "."]]
    other = site.tab(one.page.context, f"/{one.page.evaluate('location.hash')}")
    other.sees("Start", "This is an answer.")
    one.send("From one")
    expect(one.answer).to_have_text("To one")
    other.send("From the other")
    expect(other.answer).to_have_text("To the other")
    gates[1].set()
    other.settled()
    gates[0].set()
    one.settled()
    for user in (one, other):
        user.reload()
        (conversation,) = exported(user)
        texts = {message["text"] for message in conversation["messages"].values()}
        assert texts == {
            "Start",
            "This is an answer.",
            "From one",
            "To one.",
            "From the other",
            "To the other.",
        }
        assert {message["state"] for message in conversation["messages"].values()} == {"complete"}


def test_another_browser_sees_conversations_on_the_server(keeping_site: Site) -> None:
    first = keeping_site.visit()
    first.ask("Kept here")
    second = keeping_site.visit()
    second.button("Kept here").click()
    second.sees("Kept here", "This is an answer.")
    second.ask("And more")
    first.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(first.find(".message")).to_have_count(4)
    second.choose("Kept here", "Delete")
    expect(second.find("#conversations li")).to_have_count(0)
    assert keeping_site.visit().titles == []
    assert first.page.evaluate("indexedDB.databases().then((all) => all.length)") == 0
