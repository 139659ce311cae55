"""What a user does and sees on the page, in a real Chromium."""

from typing import Any

from support.chromium import TIMEOUT_MS
from support.page_server import Script


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect

    return expect(locator)


class User:
    """A user with an open page. faults: script errors, violations of the content security policy,
    and requests to other servers; no test may cause any."""

    def __init__(self, page: Any, url: str):
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.faults.append(message.text)
                if message.type == "error" and "Failed to load" not in message.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((url, "blob:")) else self.faults.append(request.url)
            ),
        )
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))

    def open(self, path: str = "/") -> "User":
        self.page.goto(self.url + path)
        self.ready()
        return self

    def ready(self) -> None:
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def type(self, text: str) -> None:
        self.page.locator("#input").fill(text)

    def send(self, text: str) -> None:
        """Send and do not wait for the answer."""
        self.type(text)
        self.page.locator("#input").press("Enter")
        expect(self.page.locator("#input")).to_have_value("")

    def ask(self, text: str) -> None:
        """Send and wait for the end of the answer."""
        self.send(text)
        self.settled()

    def settled(self) -> None:
        """Wait until no answer is under way."""
        self.page.locator("#send[aria-label=Send]").wait_for()

    def find(self, selector: str) -> Any:
        return self.page.locator(selector)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def answer(self) -> Any:
        """The text of the last answer."""
        return self.page.locator(".message.assistant .body").last

    @property
    def note(self) -> Any:
        """The note below the last answer."""
        return self.page.locator(".note").last

    def sees(self, *texts: str) -> None:
        """Wait until these are the messages on the screen, first to last."""
        expect(self.page.locator(".message .body")).to_have_text(list(texts))

    @property
    def titles(self) -> list[str]:
        return self.page.locator("#conversations .name").all_inner_texts()

    def choose(self, title: str, entry: str) -> None:
        """Choose an entry from the menu of a conversation."""
        self.button(f"Options for {title}").click()
        self.page.get_by_role("menuitem", name=entry, exact=True).click()

    def settings(self) -> None:
        self.button("Settings").click()


class Site:
    """A scripted server and its users, each with a separate browser context."""

    def __init__(self, browser: Any, url: str, script: Script):
        self.browser = browser
        self.url = url
        self.script = script
        self.users: list[User] = []

    def visit(self, path: str = "/", **context: Any) -> User:
        return self.tab(
            self.browser.new_context(viewport={"width": 1200, "height": 800}, **context), path
        )

    def tab(self, context: Any, path: str = "/") -> User:
        user = User(context.new_page(), self.url)
        self.users.append(user)
        return user.open(path)

    @property
    def request(self) -> dict[str, Any]:
        """The last request for an answer."""
        return self.script.requests[-1]

    def leave(self) -> None:
        for user in self.users:
            user.page.context.close()
        assert [fault for user in self.users for fault in user.faults] == []
