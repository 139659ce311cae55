"""The web page in a real Chromium, with scripted answers."""

import json
import threading
from typing import Any

import pytest
from support.page_browser import Site, expect
from support.page_server import busy

from llmchat.server.errors import BadRequest

pytestmark = pytest.mark.slow

LONG = [f"Line {number} of a long answer.\n\n" for number in range(60)]


def test_an_answer_appears_while_it_is_written(site: Site) -> None:
    loaded, gate = threading.Event(), threading.Event()
    site.script.answers.append([loaded, "First **words**", gate, " and the rest."])
    user = site.visit()
    user.send("Hello")
    expect(user.note).to_have_text("Waiting for the model…")
    loaded.set()
    expect(user.answer).to_have_text("First words")
    expect(user.find(".message.assistant")).to_have_attribute("aria-busy", "true")
    top, field = user.find(".message.user").bounding_box(), user.find("#composer").bounding_box()
    gate.set()
    expect(user.answer).to_have_text("First words and the rest.")
    user.settled()
    expect(user.find(".message.assistant")).to_have_attribute("aria-busy", "false")
    expect(user.find(".meta")).to_contain_text("small · 2 tokens")
    expect(user.find(".meta")).to_contain_text("tokens/s")
    assert (user.find(".message.user").bounding_box(), user.find("#composer").bounding_box()) == (
        top,
        field,
    ), "the layout jumped"
    assert user.find("#said").inner_text() == "The answer is complete."
    assert site.request["messages"] == [{"role": "user", "content": "Hello"}]
    assert site.request["stream_options"] == {"include_usage": True}


def test_finished_blocks_are_not_redrawn(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append(
        ["One paragraph.\n\n```python\nprint(1)\n```\n\nNow ", gate, "[more][1].\n\n* and\n* more"]
    )
    user = site.visit()
    user.send("Hello")
    expect(user.answer).to_contain_text("Now")
    user.page.evaluate(
        "document.querySelectorAll('.block').forEach((block, index) => (block.mark = index))"
    )
    gate.set()
    user.settled()
    assert user.page.evaluate(
        "[...document.querySelectorAll('.block')].map((block) => block.mark)"
    ) == [0, 1, None, None]
    assert [item.strip() for item in user.find(".markdown li").all_inner_texts()] == ["and", "more"]


def test_the_view_follows_the_end_until_the_user_scrolls_up(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append([*LONG, gate, "\n\nThe end."])
    user = site.visit()
    user.send("Hello")
    expect(user.find(".block").last).to_have_text(LONG[-1].strip())
    scroller = "document.querySelector('#scroller')"
    end = f"{scroller}.scrollHeight - {scroller}.clientHeight"
    place = f"{scroller}.scrollTop"
    user.page.wait_for_function(f"{end} > 500 && Math.abs({place} - ({end})) < 2")
    user.page.evaluate("document.querySelector('#scroller').scrollTo(0, 100)")
    expect(user.button("Jump to the latest message")).to_be_visible()
    gate.set()
    user.settled()
    assert user.page.evaluate(place) == 100
    user.button("Jump to the latest message").click()
    user.page.wait_for_function(f"Math.abs({place} - ({end})) < 2")
    expect(user.button("Jump to the latest message")).to_be_hidden()


def test_stop_keeps_the_text_and_ends_the_generation(site: Site) -> None:
    site.script.answers += [["A part of the", threading.Event()], [" whole."]]
    user = site.visit()
    user.send("Hello")
    expect(user.answer).to_have_text("A part of the")
    user.find("#input").press("Escape")
    assert site.script.gone.wait(30), "the server did not notice the disconnect"
    expect(user.note).to_contain_text("Stopped.")
    user.reload()
    user.sees("Hello", "A part of the")
    user.button("Continue this answer").click()
    expect(user.answer).to_have_text("A part of the whole.")
    assert site.request["messages"][-1] == {"role": "assistant", "content": "A part of the"}


def test_a_regenerated_answer_keeps_the_old_version(site: Site) -> None:
    site.script.answers += [["Blue."], ["Red."], ["Because."]]
    user = site.visit()
    user.ask("A colour?")
    user.button("Regenerate").click()
    expect(user.answer).to_have_text("Red.")
    assert site.request["messages"] == [{"role": "user", "content": "A colour?"}]
    expect(user.find(".switch")).to_contain_text("2 / 2")
    user.button("Previous version").press("Enter")
    expect(user.answer).to_have_text("Blue.")
    user.reload()
    user.sees("A colour?", "Blue.")
    user.ask("Why?")
    assert [message["content"] for message in site.request["messages"]] == [
        "A colour?",
        "Blue.",
        "Why?",
    ]
    user.button("Next version").click()
    user.sees("A colour?", "Red.")


def test_an_edit_creates_a_branch(site: Site) -> None:
    site.script.answers += [["Paris."], ["Rome."]]
    user = site.visit()
    user.ask("Capital of France?")
    user.find("#input").press("ArrowUp")
    area = user.page.get_by_label("Your message")
    expect(area).to_be_focused()
    assert area.input_value() == "Capital of France?"
    area.fill("Capital of Italy?")
    area.press("Enter")
    expect(user.answer).to_have_text("Rome.")
    user.settled()
    assert site.request["messages"] == [{"role": "user", "content": "Capital of Italy?"}]
    expect(user.find("#input")).to_be_focused()
    user.button("Previous version").click()
    user.sees("Capital of France?", "Paris.")
    user.button("Edit").click()
    area.press("Escape")
    user.sees("Capital of France?", "Paris.")
    assert len(site.script.requests) == 2


def test_two_conversations_are_answered_at_once(site: Site) -> None:
    gate = threading.Event()
    site.script.answers += [["Slow", gate, " but sure."], ["Quick."]]
    user = site.visit()
    user.send("The first")
    expect(user.answer).to_have_text("Slow")
    user.page.keyboard.press("Control+k")
    expect(user.find("#welcome")).to_be_visible()
    user.ask("The second")
    user.sees("The second", "Quick.")
    assert user.titles == ["The second", "The first"]
    gate.set()
    expect(user.find(".dot")).to_have_count(0)
    user.sees("The second", "Quick.")
    user.button("The first").click()
    expect(user.answer).to_have_text("Slow but sure.")
    user.page.go_back()
    expect(user.answer).to_have_text("Quick.")
    assert user.titles == ["The first", "The second"]


def test_settings_reach_the_request(site: Site) -> None:
    user = site.visit()
    user.settings()
    expect(user.page.get_by_label("Temperature")).to_have_attribute("placeholder", "0.6")
    user.page.get_by_label("System prompt").fill("Answer in rhyme.")
    user.page.get_by_label("Temperature").fill("0.25")
    user.page.get_by_label("Top-k").fill("40")
    user.page.get_by_label("Max tokens").fill("128")
    user.page.get_by_label("Seed").fill("7")
    user.page.get_by_label("Top-p").fill("3")
    user.page.get_by_label("Stop strings").fill("###\n\\nUser:")
    expect(user.page.get_by_label("Top-p")).to_have_attribute("aria-invalid", "true")
    user.ask("Hello")
    request = site.request
    assert request["messages"][0] == {"role": "system", "content": "Answer in rhyme."}
    asked = {
        name: value
        for name, value in request.items()
        if name not in ("model", "messages", "stream", "stream_options", "show_prompt")
    }
    assert asked == {
        "temperature": 0.25,
        "top_k": 40,
        "max_tokens": 128,
        "seed": 7,
        "stop": ["###", "\nUser:"],
    }
    user.reload()
    user.settings()
    assert user.page.get_by_label("System prompt").input_value() == "Answer in rhyme."
    assert user.page.get_by_label("Stop strings").input_value() == "###\n\\nUser:"
    user.button("Reset").click()
    user.button("Regenerate").click()
    user.settled()
    assert "temperature" not in site.request and "stop" not in site.request


def test_model_and_adapter_are_chosen(site: Site) -> None:
    user = site.visit()
    assert user.find("#model option .name").all_text_contents() == ["small", "large"]
    assert user.find("#adapter option").all_text_contents() == ["no adapter", "poet", "pirate"]
    user.find("#adapter").select_option("pirate")
    user.settings()
    user.page.get_by_label("Adapter strength").fill("0.5")
    user.ask("Hello")
    assert site.request["model"] == "small+pirate:0.5"
    user.find("#model").select_option("org/large")
    expect(user.find("#adapter")).to_be_hidden()
    user.ask("Hello again")
    assert site.request["model"] == "org/large"
    assert site.request["messages"][0] == {"role": "system", "content": "Be exact."}, (
        "the model's own system prompt"
    )


def test_system_prompt_survives_a_refresh_of_the_models(site: Site) -> None:
    user = site.visit()
    held: list[Any] = []
    user.page.route("**/v1/models/org/large", lambda route: held.append(route))
    user.find("#model").select_option("org/large")
    user.type("Hello")
    user.find("#input").press("Enter")
    with user.page.expect_response("**/api/models"):
        user.find("#model").dispatch_event("focus")
    user.page.wait_for_timeout(100)
    assert held, "the model's defaults are asked for"
    for route in held:
        route.continue_()
    expect(user.find("#input")).to_have_value("")
    user.settled()
    assert site.request["messages"][0] == {"role": "system", "content": "Be exact."}


def test_system_prompt_is_asked_for_again_after_a_failure(site: Site) -> None:
    user = site.visit()
    user.page.route("**/v1/models/org/large", lambda route: route.abort())
    with user.page.expect_event("requestfailed"):
        user.find("#model").select_option("org/large")
    user.page.unroute("**/v1/models/org/large")
    user.ask("Hello")
    assert site.request["messages"][0] == {"role": "system", "content": "Be exact."}


def test_requests_to_a_busy_server_are_retried(site: Site) -> None:
    site.script.answers += [[busy(1)], ["At last."]]
    user = site.visit()
    user.send("Hello")
    expect(user.note).to_contain_text("Trying again in 1 s")
    expect(user.answer).to_have_text("At last.")
    user.settled()
    assert len(site.script.requests) == 2 and user.note.inner_text() == ""


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        (RuntimeError("the model broke"), "the model broke"),
        (ConnectionError(), "connection was lost"),
    ],
)
def test_an_error_in_the_middle_keeps_the_text(site: Site, fault: Exception, note: str) -> None:
    site.script.answers += [["Half ", 0.05, fault], ["Whole."]]
    user = site.visit()
    user.ask("Hello")
    expect(user.note).to_contain_text(note)
    expect(user.answer).to_have_text("Half")
    user.button("Try again").click()
    expect(user.answer).to_have_text("Whole.")
    expect(user.find(".switch")).to_contain_text("2 / 2")


def test_the_user_decides_what_to_do_about_a_full_context_window(site: Site) -> None:
    site.script.answers += [[BadRequest("too long", code="context_length_exceeded")], ["Short."]]
    user = site.visit()
    user.ask("Hello")
    expect(user.note).to_contain_text("too long")
    assert "truncation" not in site.request
    user.button("Drop the oldest messages").click()
    expect(user.answer).to_have_text("Short.")
    assert site.request["truncation"] == "auto" and user.find(".switch").count() == 0


def test_code_is_copied_unchanged(site: Site) -> None:
    site.script.answers.append(["```html\n<b>&amp;</b>\n\n  two\n```\n"])
    user = site.visit(permissions=["clipboard-read", "clipboard-write"])
    user.ask("Code?")
    user.button("Copy code").click()
    expect(user.button("Copy code")).to_have_text("Copied")
    assert user.page.evaluate("navigator.clipboard.readText()") == "<b>&amp;</b>\n\n  two"


def test_the_request_can_be_shown(site: Site) -> None:
    site.script.answers.append([{"thinking": "Let me see."}, "Yes."])
    user = site.visit()
    user.ask("Is it?")
    user.find("summary").click()
    expect(user.find(".thought")).to_have_text("Let me see.")
    user.button("Show request").click()
    shown = json.loads(user.find("#sent pre").first.inner_text())
    assert shown == site.request
    expect(user.find("#sent pre").nth(1)).to_have_text("<s>All of it")
    expect(user.find("#sent")).to_contain_text("Messages sent: 3, dropped: 2.")
    expect(user.find(".meta")).to_contain_text("2 of 5 messages dropped")
    user.page.keyboard.press("Escape")
    expect(user.find("#sent")).to_be_hidden()
