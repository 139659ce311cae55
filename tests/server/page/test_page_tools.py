"""Calls of tools on the page: cards, the user's permission, results, and what is kept of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.page_browser import Site, User, expect
from support.page_server import Script, serving
from support.tools import SmallTool

from llmchat.server.tools import ToolRunner
from llmchat.tools import Output
from llmchat.tools.permission import Permissions
from llmchat.tools.toolbox import Toolbox

HTML = "<img src=x onerror=alert(1)><b>bold</b>"
BUTTONS = ("Run once", "Allow in this chat", "Refuse")


class Endless(SmallTool):
    """Ends when it is told to stop."""

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        self.calls.append(arguments)
        stop.wait(60)
        self.stopped = stop.is_set()
        return Output("stopped")


@pytest.fixture
def echo() -> SmallTool:
    return SmallTool()


@pytest.fixture
def endless() -> Endless:
    return Endless("endless", "endless")


@pytest.fixture
def user(
    chromium: Any, script: Script, tmp_path: Path, echo: SmallTool, endless: Endless
) -> Iterator[User]:
    """A user of a server with tools and history, who turned the tools on."""
    runner = ToolRunner(Toolbox([echo, endless], Permissions(None)))
    with serving(script, tmp_path / "web.db", runner) as url:
        site = Site(chromium, url, script)
        user = site.visit()
        user.button("Tools").click()
        yield user
        site.leave()
    runner.close()


def call(text: str = "hi", name: str = "echo") -> dict[str, Any]:
    return {"calls": [(name, json.dumps({"text": text}))]}


def card(user: User) -> Any:
    return user.find(".call").last


def has_called(tool: SmallTool, wait: Callable[[int], None]) -> bool:
    for _ in range(500):
        if tool.calls:
            return True
        wait(20)
    return False


def test_without_tools_of_the_server_there_is_no_switch(site: Site) -> None:
    user = site.visit()
    user.ask("Hello")
    expect(user.button("Tools")).to_be_hidden()
    assert "tools" not in site.request


def test_a_call_runs_after_a_click_and_the_answer_goes_on(
    user: User, script: Script, echo: SmallTool
) -> None:
    script.answers += [["I look. ", call(HTML)], ["It says ", "hi."]]
    user.send("Look")
    expect(card(user)).to_contain_text("echo needs your permission")
    expect(card(user)).to_contain_text(HTML)
    expect(user.button("Stop")).to_be_visible()
    assert echo.calls == [] and len(script.requests) == 1
    assert [one["function"]["name"] for one in script.requests[0]["tools"]] == ["echo", "endless"]
    user.button("Run once").click()
    expect(user.answer).to_have_text("It says hi.")
    user.settled()
    assert echo.calls == [{"text": HTML}]
    asked, called, result = script.requests[1]["messages"]
    assert asked == {"role": "user", "content": "Look"}
    assert (called["role"], called["content"]) == ("assistant", "I look. ")
    assert result == {"role": "tool", "tool_call_id": "call-0", "content": HTML}
    assert called["tool_calls"][0]["id"] == "call-0"
    # What a tool returns is text.
    card(user).locator("summary").click()
    expect(card(user).locator("details pre")).to_have_text(HTML)
    assert user.find(".call img, .call b").count() == 0
    for name in BUTTONS:
        expect(user.button(name)).to_have_count(0)
    user.reload()
    expect(card(user)).to_contain_text("echo")
    user.ask("And now?")
    roles = [message["role"] for message in script.requests[2]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


def test_a_refused_call_does_not_run_and_the_model_learns_it(
    user: User, script: Script, echo: SmallTool
) -> None:
    script.answers += [[call()], ["A pity."]]
    user.send("Look")
    user.button("Refuse").click()
    expect(user.answer).to_have_text("A pity.")
    expect(card(user)).to_contain_text("was refused")
    assert echo.calls == [] and "did not allow" in script.requests[1]["messages"][-1]["content"]


def test_leave_for_a_chat_ends_with_the_chat_and_the_page(
    user: User, script: Script, echo: SmallTool
) -> None:
    script.answers += [[call("1")], [call("2")], ["Done."], [call("3")]]
    user.send("Look")
    user.button("Allow in this chat").click()
    expect(user.answer).to_have_text("Done.")
    assert echo.calls == [{"text": "1"}, {"text": "2"}]
    user.settled()
    user.reload()
    user.send("Again")
    expect(user.button("Run once")).to_be_visible()
    assert len(echo.calls) == 2


def test_a_tool_that_is_not_offered_and_broken_arguments_do_not_run(
    user: User, script: Script, echo: SmallTool
) -> None:
    script.answers += [[call(name="python")], [{"calls": [("echo", "[1")]}], ["Well."]]
    user.ask("Look")
    expect(user.answer).to_have_text("Well.")
    assert echo.calls == []
    assert "no tool `python`" in script.requests[1]["messages"][-1]["content"]
    assert "not a JSON object" in script.requests[2]["messages"][-1]["content"]
    assert script.requests[2]["messages"][-2]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_invisible_characters_in_arguments_are_shown(user: User, script: Script) -> None:
    script.answers.append([call("safe\u202egnp.exe\u200b")])
    user.send("Look")
    expect(card(user)).to_contain_text(r"safe\u{202e}gnp.exe\u{200b}")


def test_stop_ends_the_question_and_the_tool(user: User, script: Script, endless: Endless) -> None:
    script.answers += [[call(name="endless")], ["Later."], ["Resumed."]]
    user.send("Look")
    expect(user.button("Run once")).to_be_visible()
    user.page.keyboard.press("Escape")
    expect(user.note).to_contain_text("Stopped.")
    expect(card(user)).to_contain_text("did not run")
    assert endless.calls == []
    user.ask("Go on")
    roles = [message["role"] for message in script.requests[1]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert "stopped before" in script.requests[1]["messages"][2]["content"]
    script.answers.insert(0, [call(name="endless")])
    user.send("Once more")
    user.button("Run once").click()
    expect(card(user)).to_contain_text("is running")
    assert has_called(endless, user.page.wait_for_timeout)
    user.button("Stop").click()
    expect(user.note).to_contain_text("Stopped.")
    # A stopped answer can go on: the call is asked for again.
    user.button("Continue this answer").last.click()
    user.button("Refuse").click()
    expect(user.answer).to_have_text("Resumed.")


def test_rounds_are_bounded(user: User, script: Script, echo: SmallTool) -> None:
    script.answers += [[call(str(number))] for number in range(8)] + [["Enough."]]
    user.send("Look")
    user.button("Allow in this chat").click()
    expect(user.answer).to_have_text("Enough.")
    assert len(echo.calls) == 8
    choices = [request.get("tool_choice") for request in script.requests]
    assert choices == [None] * 8 + ["none"]


def test_a_long_result_is_cut_and_the_page_fits_a_phone(
    user: User, script: Script, echo: SmallTool
) -> None:
    user.page.set_viewport_size({"width": 320, "height": 568})
    script.answers += [[call("y" * 5000)], [call("z" * 300)]]
    user.send("Look")
    sideways = (
        "[...document.querySelectorAll('html, body, #main, #scroller, #composer, .call')]"
        ".filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.id || e.className)"
    )
    for name in BUTTONS:
        expect(user.button(name)).to_be_visible()
    assert user.page.evaluate(sideways) == []
    # With the keyboard alone.
    user.button("Run once").focus()
    user.page.keyboard.press("Enter")
    expect(user.find(".call")).to_have_count(2)
    first = user.find(".call").first
    first.locator("summary").press("Enter")
    expect(first.locator("details pre")).to_have_text("y" * 600)
    first.get_by_role("button", name="Show all").click()
    expect(first.locator("details pre")).to_contain_text("more characters were left out")
    assert user.page.evaluate(sideways) == []


def test_imported_calls_are_checked_and_allow_nothing(
    user: User, script: Script, echo: SmallTool, tmp_path: Path
) -> None:
    script.answers += [[call("1")], ["First."]]
    user.send("Look")
    user.button("Allow in this chat").click()
    expect(user.answer).to_have_text("First.")
    user.settled()
    with user.page.expect_download() as saved:
        user.choose("Look", "Export as JSON")
    exported = json.loads(Path(saved.value.path()).read_text("utf-8"))
    (conversation,) = exported["conversations"]
    (answer,) = [one for one in conversation["messages"].values() if one["role"] == "assistant"]
    (round_,) = answer["rounds"]
    assert round_["calls"][0]["result"] == "1" and '"allowed": ["' not in json.dumps(exported)
    round_["calls"][0]["arguments"] = None
    file = tmp_path / "import.json"
    file.write_text(json.dumps(exported), "utf-8")
    with user.page.expect_file_chooser() as chooser:
        user.button("Import").click()
    chooser.value.set_files(file)
    expect(user.find(".notice")).to_contain_text("invalid tool call")


def test_another_version_and_an_export_keep_the_calls(
    user: User, script: Script, echo: SmallTool
) -> None:
    script.answers += [[call("1")], ["First."], ["Second."]]
    user.send("Look")
    user.button("Run once").click()
    expect(user.answer).to_have_text("First.")
    user.settled()
    user.button("Regenerate").click()
    expect(user.answer).to_have_text("Second.")
    user.settled()
    expect(user.find(".call")).to_have_count(0)
    user.button("Previous version").click()
    expect(user.answer).to_have_text("First.")
    expect(user.find(".call")).to_have_count(1)
    user.button("Delete answer").click()
    expect(user.find(".call")).to_have_count(0)
    user.button("Undo").click()
    expect(user.find(".call")).to_have_count(1)
    with user.page.expect_download() as saved:
        user.choose("Look", "Export as Markdown")
    text = Path(saved.value.path()).read_text("utf-8")
    assert "**echo**" in text and '{"text": "1"}' in text and "First." in text
