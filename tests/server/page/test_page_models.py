"""What the page shows of models: the picker, loading, the window that is used, and speed."""

import threading
from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site, expect
from support.page_server import Script
from support.serving import model_spec, serving

from llmchat.engines.scripted import ScriptedEngine

pytestmark = pytest.mark.slow


def test_the_model_menu_shows_size_window_and_state(site: Site) -> None:
    user = site.visit()
    assert user.find("#model option").all_text_contents() == [
        "small 150 MB · 2k window · loaded",
        "large 1.6 GB · 32k window",
    ]
    expect(user.find("#model selectedcontent .name")).to_have_text("small")
    expect(user.find("#model selectedcontent .facts")).to_be_hidden()
    site.script.facts[1]["state"] = "loaded"
    user.find("#model").focus()
    expect(user.find("#model option").nth(1)).to_have_text("large 1.6 GB · 32k window · loaded")
    user.find("#model").click()
    user.find("#model option").nth(1).click()
    user.ask("Hello")
    assert site.request["model"] == "org/large"


def test_ambiguous_model_names_are_shown_in_full(site: Site) -> None:
    user = site.visit()
    names = (
        "(ids) => import('./page/models.js').then(({shortNames}) => [...shortNames(ids).values()])"
    )
    assert user.page.evaluate(names, ["a/one", "b/one", "b/two", "three"]) == [
        "a/one",
        "b/one",
        "two",
        "three",
    ]


def test_loading_progress_is_shown(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append([gate, "Yes."])
    site.script.facts[0].update(state="loading", loading_s=3.2, expected_s=8.0)
    user = site.visit()
    user.send("Hello")
    expect(user.note).to_contain_text("Loading small · 3 of about 8 s")
    expect(user.note.get_by_role("progressbar")).to_have_attribute("value", "3.2")
    site.script.facts[0].update(expected_s=None)
    expect(user.note).to_have_text("Loading small · 3 s")
    gate.set()
    user.settled()
    expect(user.note).to_have_text("")


def test_the_ring_shows_how_full_the_context_window_is(site: Site) -> None:
    user = site.visit()
    ring = user.find("#context")
    expect(ring).to_have_attribute(
        "aria-label", "0 of 2,048 tokens of the context window used (0%)"
    )
    user.ask("Hello")
    expect(ring).to_have_attribute(
        "aria-label", "12 of 2,048 tokens of the context window used (1%)"
    )
    ring.click()
    expect(user.find(".notice")).to_contain_text("12 of 2,048 tokens")
    user.page.keyboard.press("Control+k")
    expect(ring).to_have_attribute(
        "aria-label", "0 of 2,048 tokens of the context window used (0%)"
    )


def test_the_speed_of_a_growing_answer_is_shown(site: Site) -> None:
    gate = threading.Event()
    site.script.answers.append([*["word ", 0.03] * 40, gate, "end."])
    user = site.visit()
    user.send("Hello")
    expect(user.find(".meta")).to_contain_text("≈")
    expect(user.find(".meta")).to_contain_text("tokens/s")
    gate.set()
    user.settled()
    expect(user.find(".meta")).to_contain_text("small · 41 tokens")


def test_the_real_server_reports_loading_progress(chromium: Any, tmp_path: Path) -> None:
    gate = threading.Event()

    def load() -> ScriptedEngine:
        assert gate.wait(20)
        return ScriptedEngine(["Yes."])

    with (
        serving({"org/poet": model_spec(load, key="poet", size=99)}, tmp_path) as run,
        run.http as http,
    ):
        site = Site(chromium, run.url, Script())
        user = site.visit()
        assert user.find("#model option .facts").all_text_contents()[0].startswith(" 1 MB")
        user.send("Hello")
        expect(user.note).to_contain_text("Loading poet ·")
        assert http.get("/api/models").json()["data"][0]["state"] == "loading"
        gate.set()
        user.sees("Hello", "Yes.")
        facts = {
            "id": "org/poet",
            "size": 99,
            "state": "loaded",
            "loading_s": None,
            "expected_s": None,
        }
        assert http.get("/api/models").json()["data"] == [facts]
        expect(user.find("#model option .facts")).to_contain_text("loaded")
        site.leave()
