"""The page with the real server: keys, a history for each key, and a complete answer."""

from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site, User, expect
from support.page_server import Script
from support.serving import model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server.keys import Keys

pytestmark = pytest.mark.slow


def enter(site: Site, key: str) -> User:
    """A browser that knows this key."""
    stored = {"origin": site.url, "localStorage": [{"name": "llmchat.key", "value": key}]}
    return site.visit(storage_state={"cookies": [], "origins": [stored]})


def test_two_users_of_one_server(chromium: Any, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    ann, bob = keys.add("ann"), keys.add("bob")
    engine = ScriptedEngine(["Well, **yes**.\n\n- and no"])
    with serving(
        {"scripted": model_spec(lambda: engine)}, tmp_path, key_file=keys.file, history=True
    ) as run:
        site = Site(chromium, run.url, Script())
        user = enter(site, ann)
        user.ask("Is it?")
        user.sees("Is it?", "Well, yes.\nand no")
        expect(user.find(".markdown strong")).to_have_text("yes")
        expect(user.find(".meta")).to_contain_text("scripted · ")
        user.button("Show request").click()
        assert (
            "Is it?" in (prompt := user.find("#sent pre").nth(1).inner_text())
            and "<|im_start|>assistant" in prompt
        )
        user.page.keyboard.press("Escape")
        again = enter(site, ann)
        again.button("Is it?").click()
        again.sees("Is it?", "Well, yes.\nand no")
        other = enter(site, bob)
        assert other.titles == []
        other.ask("Mine")
        assert other.titles == ["Mine"]
        user.reload()
        assert user.titles == ["Is it?"]
        site.leave()


def test_stopping_an_answer_frees_the_engine(chromium: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(["word " * 500], delay_s=0.01)
    with serving({"slow": model_spec(lambda: engine, key="slow")}, tmp_path) as run:
        site = Site(chromium, run.url, Script())
        user = site.visit()
        user.send("Go")
        expect(user.answer).to_contain_text("word word")
        user.find("#input").press("Escape")
        expect(user.note).to_contain_text("Stopped.")
        user.page.wait_for_function(
            "fetch('metrics').then((answer) => answer.text())"
            ".then((text) => /llmchat_answers_running\\S* 0/.test(text))"
        )
        kept = user.answer.inner_text()
        user.reload()
        user.sees("Go", kept)
        site.leave()
    assert 2 <= kept.count("word") < 500
