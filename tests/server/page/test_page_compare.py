"""Two models side by side: one question, two answers, and a chat that goes on from either."""

import threading
from typing import Any

import pytest
from support.page_browser import Site, User, expect

pytestmark = pytest.mark.slow


def asked(site: Site) -> list[tuple[str, list[str]]]:
    """Model and messages of every request."""
    return [
        (request["model"], [message["content"] for message in request["messages"]])
        for request in site.script.requests
    ]


def columns(user: User) -> list[dict[str, Any]]:
    return [item.bounding_box() for item in user.find(".pair > .message").all()]


def test_two_models_answer_in_comparison(site: Site) -> None:
    gate = threading.Event()
    site.script.answers += [["One ", gate, "way."], ["Other ", gate, "way."]]
    user = site.visit()
    user.button("Compare two models").click()
    assert user.find("#compare").input_value() == "org/large"
    user.send("How?")
    expect(user.find(".pair .body")).to_have_count(2)
    expect(user.find(".pair .body").first).to_contain_text("O")
    expect(user.find(".pair .body").last).to_contain_text("O")
    gate.set()
    user.settled()
    assert sorted(asked(site)) == [("org/large", ["Be exact.", "How?"]), ("small", ["How?"])]
    expect(user.find(".pair h2")).to_have_text(["small", "org/large"])
    left, right = columns(user)
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    user.page.set_viewport_size({"width": 390, "height": 844})
    above, below = columns(user)
    assert above["x"] == below["x"] and above["y"] + above["height"] <= below["y"]


def test_the_chat_continues_from_the_chosen_answer(site: Site) -> None:
    user = site.visit()
    user.button("Compare two models").click()
    user.ask("How?")
    texts = dict(
        zip(("small", "org/large"), user.find(".pair .body").all_inner_texts(), strict=True)
    )
    expect(user.find(".pair .chosen h2")).to_have_text("small")
    user.button("Edit answer").last.click()
    user.page.get_by_label("The answer").fill("Like this.")
    user.button("Save").click()
    user.button("Previous version").click()
    user.button("Continue from this answer").click()
    expect(user.find(".pair .chosen h2")).to_have_text("org/large")
    user.button("Compare two models").click()
    expect(user.find("#compare")).to_be_hidden()
    site.script.answers.append(["So."])
    user.ask("And then?")
    assert asked(site)[-1] == ("small", ["How?", texts["org/large"], "And then?"])
    user.reload()
    expect(user.find(".pair .message")).to_have_count(2)
    expect(user.find(".pair .chosen h2")).to_have_text("org/large")
    expect(user.answer).to_have_text("So.")


def test_stop_ends_both_answers_and_regenerating_creates_another_pair(site: Site) -> None:
    site.script.answers += [
        ["One", threading.Event()],
        ["Other", threading.Event()],
        ["Third."],
        ["Fourth."],
    ]
    user = site.visit()
    user.button("Compare two models").click()
    user.send("How?")
    expect(user.find(".pair .body").first).to_contain_text("O")
    expect(user.find(".pair .body").last).to_contain_text("O")
    user.find("#input").press("Escape")
    user.settled()
    expect(user.find(".pair .note")).to_contain_text(["Stopped.", "Stopped."])
    user.button("Regenerate").first.click()
    user.settled()
    assert sorted(user.find(".pair .body").all_inner_texts()) == ["Fourth.", "Third."]
    expect(user.find(".switch")).to_have_count(1)
    expect(user.find(".switch")).to_contain_text("2 / 2")
    user.button("Previous version").click()
    assert sorted(user.find(".pair .body").all_inner_texts()) == ["One", "Other"]
