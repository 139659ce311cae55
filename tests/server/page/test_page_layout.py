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


ANSWER = [
    "# Heading\n\nText with `code`, **strong**, [a link](https://example.org) and $x^2$.\n\n"
    "> A quote.\n\n```python\n@cache\ndef f(x: int) -> str:  # why\n    return f'{x}' * 3\n```\n\n"
    "```diff\n- old\n+ new\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
]
# Visible texts with a contrast below 4.5:1 (WCAG 2, level AA), against the nearest background that
# is opaque. Disabled buttons are exempt.
TOO_PALE = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) =>
    parts(colour)
      .slice(0, 3)
      .map((part) => part / 255)
      .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    if ((parts(colour)[3] ?? 1) === 1) return colour;
    return ground(element.parentElement);
  };
  const hasText = (element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = { opacityProperty: true, visibilityProperty: true };
  const seen = [...document.body.querySelectorAll("*")].filter(
    (element) =>
      hasText(element) && element.checkVisibility(shown) && !element.closest(":disabled, noscript"),
  );
  const pale = seen.filter((element) => {
    const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  });
  return [seen.length, pale.map((element) => element.outerHTML.slice(0, 100))];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 800), (360, 640)], ids=["desktop", "phone"])
def test_every_text_can_be_read(site: Site, scheme: str, size: tuple[int, int]) -> None:
    site.script.answers.append(ANSWER)
    user = site.visit()
    user.page.set_viewport_size({"width": size[0], "height": size[1]})
    user.ask("Show me everything")
    # The theme is chosen with the keyboard, against that of the system.
    user.page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    if size[0] < 600:
        user.button("Conversations").click()
    presses = {"light": 1, "dark": 2}[scheme]
    user.button("Theme: auto").focus()
    for _ in range(presses):
        user.page.keyboard.press("Enter")
    expect(user.find("#said")).to_have_text(f"Theme: {scheme}")
    expect(user.button(f"Theme: {scheme}")).to_be_focused()
    check = user.page.evaluate(TOO_PALE)
    assert check[0] > 5 and check[1] == []
    if size[0] < 600:
        user.page.keyboard.press("Escape")
    user.settings()
    assert user.page.evaluate(TOO_PALE)[1] == []
    # The choice is there before the first paint of the next visit.
    user.page.add_init_script(
        "addEventListener('DOMContentLoaded', () => "
        "{ window.early = document.documentElement.dataset.theme; })"
    )
    user.reload()
    assert user.page.evaluate("window.early") == scheme
    assert user.page.evaluate(TOO_PALE)[1] == []


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
