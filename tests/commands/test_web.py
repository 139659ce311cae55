"""`llmchat chat --web`: one answer from pages, its sources on stderr or in JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.loopback_web import Reply, Site, serving
from support.worlds import make_world

from llmchat import cli
from llmchat.chat import Chat
from llmchat.commands import one_shot
from llmchat.conversation import Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.settings import World, resolve
from llmchat.tools.opening import open_toolbox

PRESET = """
format = "alpaca"
engine = "scripted"
parameters = 1
[base]
kind = "path"
repo = "/nowhere"
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(pages={"/a": Reply(b"Built in 1932.", "text/plain")})) as site:
        site.results = [{"url": f"{site.url}/a", "title": "Hit", "content": "extract"}]
        yield site


@pytest.fixture
def web_world(tmp_path: Path, site: Site) -> World:
    settings = {"LLMCHAT_SEARXNG_URL": site.url, "LLMCHAT_ALLOW_PRIVATE": "1"}
    world = make_world(tmp_path, **settings)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "old.toml").write_text(PRESET)
    return world


def chat(world: World, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["chat", "-m", "old", *arguments], world)
    streams: Any = world
    return code, streams.stdout.getvalue(), streams.stderr.getvalue()


def test_a_model_without_tools_answers_from_the_web(web_world: World, site: Site) -> None:
    code, answer, notes = chat(web_world, "--web", "When was it built?")
    assert code == 0 and "When was it built?" in answer
    assert notes.startswith("searching the web …\n")
    assert notes.endswith(f"[1] {site.url}/a\n")
    assert site.asked == ["/search?q=When+was+it+built%3F&format=json", "/a"]


def test_sources_are_in_json(web_world: World, site: Site) -> None:
    code, answer, notes = chat(web_world, "--web", "--json", "-q", "When?")
    url = f"{site.url}/a"
    assert code == 0 and json.loads(answer)["sources"] == [{"n": 1, "source": url, "title": url}]
    assert notes == ""


def test_offline_mode_is_refused_before_the_model_is_opened(web_world: World, site: Site) -> None:
    code, answer, notes = chat(web_world, "--web", "--offline", "-m", "unknown", "When?")
    assert (code, answer, site.asked) == (5, "", []) and "offline mode is on" in notes


def test_it_takes_a_question(tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True)
    code, _, notes = chat(world, "--web")
    assert code == 2 and "--web takes a PROMPT or piped text" in notes


def test_a_search_that_fails_is_one_line(web_world: World, site: Site) -> None:
    site.results = []
    code, answer, notes = chat(web_world, "--web", "-q", "When?")
    assert (code, answer) == (1, "")
    assert notes == "error: the web has no results for `When?`\n"


def test_sources_of_tools_have_the_numbers_of_their_texts(web_world: World, site: Site) -> None:
    calls = [("web_search", {"query": "bridge"}), ("web_fetch", {"url": f"{site.url}/a"})]
    text = '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>'
    engine = ScriptedEngine(
        [*(text.format(name, json.dumps(arguments)) for name, arguments in calls), "In 1932 [1]."]
    )
    settings = resolve(web_world, {"tool": ("web",), "allow": ("web",)})
    preset = replace(find("smollm2"), format=get_format("chatml"), engine="scripted")
    with open_toolbox(web_world, settings) as box:
        talk = Chat(preset, engine, History(None), tools=box)
        one_shot.run(talk, web_world, Message("user", "When?"), one_shot.Output(json=True))
    answer = json.loads(web_world.stdout.getvalue())  # type: ignore[attr-defined]
    assert answer["text"] == "In 1932 [1]."
    assert [call["error"] for call in answer["tool_calls"]] == ["", ""]
    assert "[1] Hit" in answer["tool_calls"][0]["result"]
    assert f"[1] {site.url}/a" in answer["tool_calls"][1]["result"]
    assert answer["sources"] == [{"n": 1, "source": f"{site.url}/a", "title": "Hit"}]
