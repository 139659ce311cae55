"""The card that asks for an API key, on servers that require one."""

from pathlib import Path
from typing import Any

import pytest
from support.page_browser import Site, User, expect
from support.page_server import Script
from support.serving import model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server.keys import Keys

pytestmark = pytest.mark.slow


def stranger(site: Site) -> User:
    """Somebody who comes without a key, and is not let in yet."""
    user = User(site.browser.new_page(), site.url)
    site.users.append(user)
    user.page.goto(site.url)
    return user


def sign_in(user: User, key: str) -> None:
    expect(user.page.get_by_label("API key")).to_be_focused()
    user.page.get_by_label("API key").fill(key)
    user.button("Sign in").click()


def test_the_key_is_stored_until_the_user_signs_out(site: Site) -> None:
    site.script.key = "secret"
    user = stranger(site)
    expect(user.find("#signin")).to_contain_text("This server requires an API key.")
    sign_in(user, "")
    expect(user.find("#key-problem")).to_have_text("Enter a key.")
    sign_in(user, "schlüssel")
    expect(user.find("#key-problem")).to_contain_text("A key consists of letters")
    sign_in(user, "wrong")
    expect(user.find("#key-problem")).to_have_text("Invalid API key.")
    user.page.keyboard.press("Escape")
    user.page.keyboard.press("Escape")
    expect(user.find("#signin")).to_be_visible()
    sign_in(user, "secret")
    user.ready()
    expect(user.find("#signin")).to_be_hidden()
    user.ask("Hello")
    user.sees("Hello", "This is an answer.")
    user.type("not sent")
    user.reload()
    assert user.find("#input").input_value() == "not sent"
    user.button("Sign out").click()
    expect(user.find("#signin")).to_be_visible()
    assert user.page.evaluate("[localStorage.getItem('llmchat.key'), sessionStorage.length]") == [
        None,
        0,
    ]
    assert set(site.script.keys) == {"", "Bearer wrong", "Bearer secret"}


def test_a_removed_key_is_asked_for_again(site: Site) -> None:
    site.script.key = "first"
    user = stranger(site)
    sign_in(user, "first")
    user.ready()
    site.script.key = "second"
    user.send("Hello")
    expect(user.find("#key-problem")).to_have_text("The server no longer accepts the stored key.")
    sign_in(user, "second")
    user.page.wait_for_load_state()
    user.ready()
    user.button("Try again").click()
    user.sees("Hello", "This is an answer.")


def test_without_keys_there_is_no_sign_in(site: Site) -> None:
    user = site.visit()
    expect(user.find("#signin")).to_be_hidden()
    expect(user.button("Sign out")).to_be_hidden()


def test_the_real_server_accepts_a_key(chromium: Any, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key = keys.add("ann")
    engine = ScriptedEngine(["Yes."])
    with serving({"scripted": model_spec(lambda: engine)}, tmp_path, key_file=keys.file) as run:
        site = Site(chromium, run.url, Script())
        user = stranger(site)
        sign_in(user, "llmchat-wrong")
        expect(user.find("#key-problem")).to_have_text("Invalid API key.")
        sign_in(user, key)
        user.ready()
        user.ask("Is it?")
        user.sees("Is it?", "Yes.")
        site.leave()
