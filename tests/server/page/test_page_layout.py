"""Themes, narrow screens, and use with the keyboard alone."""

import threading

import pytest
from support.page_browser import Site, expect


def test_the_theme_is_dark_or_light(site: Site) -> None:
    user = site.visit(color_scheme="dark")
    brightness = (
        "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g)"
        ".slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"
    )
    assert user.page.evaluate(brightness) < 150
    user.button("Theme: auto").click()
    assert user.page.evaluate(brightness) > 700
    user.reload()
    assert user.page.evaluate(brightness) > 700
    user.button("Theme: light").click()
    user.button("Theme: dark").click()
    user.page.emulate_media(color_scheme="light")
    assert user.page.evaluate(brightness) > 700


WIDE = [
    "A" * 300,
    "\n\n```\n",
    "x = " + "1 + " * 100,
    "\n```\n\n",
    "| " + " | ".join(f"column {n}" for n in range(12)) + " |\n" + "|---" * 12 + "|\n",
]


@pytest.mark.parametrize(("width", "height"), [(360, 640), (320, 568)])
def test_a_phone_needs_no_horizontal_scrolling(site: Site, width: int, height: int) -> None:
    site.script.answers.append(WIDE)
    user = site.visit()
    user.page.set_viewport_size({"width": width, "height": height})
    user.ask("https://example.org/" + "a" * 200)
    sideways = (
        "[...document.querySelectorAll('html, body, #main, #scroller, #composer, aside')]"
        ".filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.id)"
    )
    assert user.page.evaluate(sideways) == []
    expect(user.find("#sidebar")).to_be_hidden()
    user.button("Conversations").click()
    expect(user.button("Close the sidebar")).to_be_focused()
    assert user.page.evaluate(sideways) == []
    user.page.keyboard.press("Escape")
    expect(user.find("#sidebar")).to_be_hidden()
    expect(user.button("Conversations")).to_be_focused()
    user.settings()
    assert user.page.evaluate(sideways) == []
    user.find("#backdrop").click(position={"x": 5, "y": 5})
    expect(user.find("#panel")).to_be_hidden()
    expect(user.find("#send")).to_be_in_viewport()


def test_the_page_works_with_the_keyboard_alone(site: Site) -> None:
    site.script.answers += [["One."], ["Two."], ["Three", threading.Event()]]
    user = site.visit()
    keys = user.page.keyboard
    expect(user.find("#input")).to_be_focused()
    keys.type("First line")
    keys.press("Shift+Enter")
    keys.type("second line")
    keys.press("Enter")
    expect(user.answer).to_have_text("One.")
    user.settled()
    assert site.request["messages"][0]["content"] == "First line\nsecond line"
    for _ in range(30):
        if user.page.evaluate("document.activeElement.ariaLabel") == "Regenerate":
            break
        keys.press("Shift+Tab")
    keys.press("Enter")
    expect(user.answer).to_have_text("Two.")
    user.settled()
    keys.type("Go on")
    keys.press("Enter")
    expect(user.answer).to_have_text("Three")
    keys.press("Escape")
    expect(user.note).to_contain_text("Stopped.")
    keys.press("Control+k")
    expect(user.find("#welcome")).to_be_visible()
    expect(user.find("#input")).to_be_focused()
    unnamed = (
        "[...document.querySelectorAll('button, input, select, textarea')].filter((e) => "
        "!e.ariaLabel && !e.labels?.length && !e.innerText.trim() && e.checkVisibility())"
    )
    assert user.page.evaluate(f"{unnamed}.map((e) => e.outerHTML)") == []
