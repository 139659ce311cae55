"""The sidebar: date groups, pins, search, menus; editing, deleting, exporting; system prompts."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site, User, expect

from llmchat.server.conversation_search import excerpt, search
from llmchat.server.conversation_store import ConversationStore

pytestmark = pytest.mark.slow

PLACES = pytest.mark.parametrize("place", ["site", "keeping_site"])


def groups(user: User) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = user.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#conversations section')].map((one) => "
        "[one.querySelector('h2').textContent, "
        "[...one.querySelectorAll('.name')].map((name) => name.textContent)]))"
    )
    return shown


def test_conversations_are_grouped_by_date(site: Site) -> None:
    user = site.visit()
    named = """(days) => import('./page/sidebar.js').then(({groupOf}) => days.map((day) => {
        const updated = new Date(2026, 2, 15 - day, 0, 30).getTime();
        return groupOf({pinned: false, updated}, new Date(2026, 2, 15, 9));
    }))"""
    assert user.page.evaluate(named, [0, 1, 2, 7, 8, 30, 31, 80]) == [
        "Today", "Yesterday", "Previous 7 days", "Previous 7 days", "Previous 30 days",
        "Previous 30 days", "February 2026", "December 2025",
    ]  # fmt: skip


@PLACES
def test_a_pinned_conversation_stays_on_top(place: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(place)
    user = site.visit()
    user.ask("Old")
    user.page.keyboard.press("Control+k")
    user.ask("New")
    assert groups(user) == {"Today": ["New", "Old"]}
    user.choose("Old", "Pin")
    expect(user.find("#conversations h2").first).to_have_text("Pinned")
    assert groups(user) == {"Pinned": ["Old"], "Today": ["New"]}
    user.reload()
    assert groups(user) == {"Pinned": ["Old"], "Today": ["New"]}
    user.choose("Old", "Unpin")
    expect(user.find("#conversations h2")).to_have_text(["Today"])
    user.reload()
    assert list(groups(user)) == ["Today"]


@PLACES
def test_search_finds_text_in_messages(place: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(place)
    site.script.answers += [["The ferry leaves at NOON & not later."], ["Bread."]]
    user = site.visit()
    user.ask("Timetable?")
    user.page.keyboard.press("Control+k")
    user.ask("What to buy?")
    user.find("#filter").fill("noon & NOT")
    expect(user.find("#conversations .name")).to_have_text(["Timetable?"])
    expect(user.find(".excerpt")).to_have_text("The ferry leaves at NOON & not later.")
    user.find("#filter").fill("BUY")
    expect(user.find("#conversations .name")).to_have_text(["What to buy?"])
    user.find("#filter").fill("nowhere")
    expect(user.find("#conversations")).to_have_text("No results.")
    user.find("#filter").fill("")
    expect(user.find("#conversations .name")).to_have_count(2)


def test_the_menu_of_a_row_works_by_touch(site: Site) -> None:
    user = site.visit(has_touch=True, is_mobile=True)
    user.page.set_viewport_size({"width": 390, "height": 844})
    user.ask("Hello")
    user.button("Conversations").tap()
    more = user.button("Options for Hello")
    assert min(more.bounding_box()["width"], more.bounding_box()["height"]) >= 44
    more.tap()
    items = user.page.get_by_role("menuitem")
    expect(items).to_have_text(["Pin", "Rename", "Export as Markdown", "Export as JSON", "Delete"])
    assert all(item.bounding_box()["height"] >= 44 for item in items.all())
    user.find("#filter, h1").first.tap()
    expect(items).to_have_count(0)
    more.tap()
    items.last.tap()
    expect(user.find("#conversations li")).to_have_count(0)


def test_the_menu_of_a_row_works_with_the_keyboard(site: Site) -> None:
    user = site.visit()
    user.ask("Hello")
    user.button("Options for Hello").focus()
    keys = user.page.keyboard
    keys.press("Enter")
    expect(user.page.get_by_role("menuitem", name="Pin")).to_be_focused()
    keys.press("ArrowUp")
    expect(user.page.get_by_role("menuitem", name="Delete")).to_be_focused()
    keys.press("Escape")
    expect(user.button("Options for Hello")).to_be_focused()
    expect(user.find("#conversations li")).to_have_count(1)


def test_an_edited_answer_keeps_the_original(site: Site) -> None:
    site.script.answers += [["The earth is flat."], ["Indeed."]]
    user = site.visit()
    user.ask("Shape?")
    user.button("Edit answer").click()
    area = user.page.get_by_label("The answer")
    area.fill("The earth is **round**.")
    user.button("Save").click()
    user.sees("Shape?", "The earth is round.")
    expect(user.find(".meta")).to_contain_text("edited by you")
    assert len(site.script.requests) == 1
    user.ask("Sure?")
    assert [message["content"] for message in site.request["messages"]] == [
        "Shape?",
        "The earth is **round**.",
        "Sure?",
    ]
    user.reload()
    user.sees("Shape?", "The earth is round.", "Sure?", "Indeed.")
    user.button("Previous version").click()
    user.sees("Shape?", "The earth is flat.")


@PLACES
def test_a_message_is_deleted_with_its_replies(place: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(place)
    site.script.answers += [["One."], ["Two."], ["Three."]]
    user = site.visit()
    user.ask("First")
    user.ask("Second secret")
    user.button("Delete message").last.click()
    user.sees("First", "One.")
    user.button("Undo").click()
    user.sees("First", "One.", "Second secret", "Two.")
    user.button("Delete message").last.click()
    expect(user.find(".notice")).to_contain_text("2 messages deleted.")
    user.reload()
    user.sees("First", "One.")
    user.ask("Third")
    assert [message["content"] for message in site.request["messages"]] == [
        "First",
        "One.",
        "Third",
    ]
    with user.page.expect_download() as download:
        user.button("Export all").click()
    assert "secret" not in Path(download.value.path()).read_text("utf-8")


def test_a_merge_does_not_restore_a_deleted_message(site: Site) -> None:
    user = site.visit()
    made = """() => import('./page/conversation.js').then((tree) => {
        const {create, add, merge, path, removeMessage} = tree;
        const one = create();
        const question = add(one, '', 'user', {text: 'q'});
        add(one, question.id, 'assistant', {text: 'a'});
        const other = structuredClone(one);
        const {undo} = removeMessage(one, question);
        const texts = () => {
            merge(one, structuredClone(other));
            merge(other, structuredClone(one));
            return [one, other].map((value) => path(value).map(({text}) => text).join());
        };
        const gone = texts();
        undo();
        return [gone, texts()];
    })"""
    assert user.page.evaluate(made) == [["", ""], ["q,a", "q,a"]]


def test_a_chat_is_exported_as_markdown(site: Site) -> None:
    site.script.answers.append(["# Yes\n\n```\ncode\n```"])
    user = site.visit()
    user.settings()
    user.page.get_by_label("System prompt", exact=True).fill("Be kind.")
    user.ask("Is it/was it?")
    with user.page.expect_download() as download:
        user.choose("Is it/was it?", "Export as Markdown")
    assert download.value.suggested_filename == "Is itwas it.md"
    exported = Path(download.value.path()).read_text("utf-8")
    assert exported == (
        "# Is it/was it?\n\n## System\n\nBe kind.\n\n## You\n\nIs it/was it?\n\n"
        "## small\n\n# Yes\n\n```\ncode\n```\n"
    )


def test_system_prompts_are_chosen_and_saved(site: Site) -> None:
    user = site.visit()
    user.settings()
    choice, field = (
        user.page.get_by_label("Choose a preset"),
        user.page.get_by_label("System prompt", exact=True),
    )
    choice.select_option(label="Concise")
    user.ask("Hello")
    assert site.request["messages"][0]["content"].startswith("Answer in as few words")
    field.fill("Answer in rhyme.")
    user.button("Save this prompt").click()
    user.reload()
    user.page.keyboard.press("Control+k")
    user.settings()
    choice.select_option(label="Answer in rhyme.")
    user.ask("Hello")
    assert site.request["messages"][0] == {"role": "system", "content": "Answer in rhyme."}
    user.button("Delete this prompt").click()
    expect(user.button("Save this prompt")).to_be_visible()
    choice.select_option(label="None")
    assert field.input_value() == ""


def test_an_excerpt_surrounds_the_match() -> None:
    message = b'{"id": "needle", "text": "%s The Needle\\nhere %s"}' % (b"x" * 50, b"y" * 200)
    value = b'{"messages": {"a": {"text": "Nothing"}, "b": %s}}' % message
    found = excerpt(value, "needle HERE"[:6])
    assert (
        found is not None
        and found.startswith("…x")
        and "The Needle here" in found
        and found.endswith("…")
    )
    assert excerpt(value, "messages") is None
    assert excerpt(b'{"messages": ["no"]}', "no") is None


def test_a_file_of_an_older_schema_gets_pins(tmp_path: Path) -> None:
    file = tmp_path / "web.db"
    with sqlite3.connect(file) as database:
        database.execute(
            "CREATE TABLE conversations (user TEXT NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL,"
            " updated REAL NOT NULL, version INTEGER NOT NULL, bytes INTEGER NOT NULL,"
            " value BLOB NOT NULL, PRIMARY KEY (user, id)) WITHOUT ROWID"
        )
        database.execute(
            "INSERT INTO conversations VALUES ('me', ?, 'Old', ?, 1, 2, ?)",
            ("0" * 24, time.time(), b"{}"),
        )
        database.execute("PRAGMA user_version = 2")
    database.close()
    store: Any = ConversationStore(file)
    assert [(head.title, head.pinned) for head in store.list("me")] == [("Old", False)]
    store.put("me", "0" * 24, "Old", b"{}", 1, True)
    assert store.list("me")[0].pinned
    store.close()


def test_search_finds_only_the_users_own_conversations(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path / "web.db")
    for user, text in (("me", "mine"), ("you", "mine too")):
        store.put(user, "0" * 24, "", b'{"messages": {"a": {"text": "%s"}}}' % text.encode(), 0)
    assert [found.excerpt for found in search(store, "me", "MINE")] == ["mine"]
    assert [found.excerpt for found in search(store, "nobody", "mine")] == []
    store.close()
