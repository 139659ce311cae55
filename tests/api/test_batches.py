"""`llmchat.batch`: many prompts from a program."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.scripted_api import engine_of, scripted, with_demo

import llmchat
from llmchat.errors import UsageError
from llmchat.settings import World


class Word(msgspec.Struct):
    word: str


def test_texts_are_answered_in_order(world: World) -> None:
    with_demo(world)
    found = llmchat.batch(["one", {"prompt": "two", "custom_id": "b"}], "demo", world=world)
    assert [(one.line, one.custom_id, "> " in one.text) for one in found] == [
        (1, None, True),
        (2, "b", True),
    ]
    assert "> two" in found[1].text and found[1].finish_reason == "stop"
    assert found.tokens == sum(one.usage.completion_tokens for one in found if one.usage)
    assert found.errors == [] and found.seconds > 0


def test_a_schema_makes_instances(tmp_path: Path) -> None:
    chat = scripted(tmp_path, '{"word": "a"}')
    world = chat._opening.world
    found = llmchat.batch(["x", "y"], chat, schema=Word, world=world)
    assert [one.value for one in found] == [Word("a")] * 2
    cut = llmchat.batch(["x"], chat.new(), schema=Word, world=world)
    assert cut[0].value == Word("a")
    assert chat.ask("?").text == '{"word": "a"}'


def test_a_template_takes_fields_and_texts(world: World) -> None:
    with_demo(world)
    rows: list[Any] = [{"city": "Rome"}, {"town": "x"}]
    found = llmchat.batch(rows, "demo", template="Where is {city}?", world=world, quiet=True)
    assert "> Where is Rome?" in found[0].text
    assert found[1].error.startswith("it has no field `city`") and found.errors == [found[1]]
    (one,) = llmchat.batch(["Rome"], "demo", template="Where is {text}?", world=world)
    assert "> Where is Rome?" in one.text


def test_a_file_goes_in_and_rows_come_out_and_a_run_goes_on(world: World, tmp_path: Path) -> None:
    with_demo(world)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"one"\n"two"\n')
    first = llmchat.batch(source, "demo", output=target, world=world)
    written = target.read_bytes()
    assert [json.loads(line)["text"] for line in written.splitlines()] == [
        one.text for one in first
    ]
    again = llmchat.batch(str(source), "demo", output=target, world=world)
    assert list(again) == list(first) and again.tokens == 0 and target.read_bytes() == written


def test_several_answers_and_requests_of_openai(world: World) -> None:
    with_demo(world)
    body = {"messages": [{"role": "user", "content": "hi"}]}
    rows: list[Any] = [{"custom_id": "r", "body": body}, {"prompt": "x"}]
    found = llmchat.batch(rows, "demo", n=2, world=world)
    assert [len(one.answers) for one in found] == [2, 2]
    assert found[0].response and found[0].response["status_code"] == 200
    assert found[0].custom_id == "r" and "> hi" in found[0].text


def test_broken_prompts_are_errors(world: World, tmp_path: Path) -> None:
    with_demo(world)
    found = llmchat.batch(["", "x"], "demo", world=world, quiet=True)
    assert found[0].error == "its prompt is empty" and found[1].text
    with pytest.raises(UsageError, match="prompt 1 is not a text or a dict: `int`"):
        llmchat.batch([3], "demo", world=world)  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"there is no file none\.jsonl"):
        llmchat.batch("none.jsonl", "demo", world=world)
    with pytest.raises(UsageError, match="the batch uses the options of the chat"):
        llmchat.batch(["x"], scripted(tmp_path, "a"), temperature=0, world=world)


def test_a_chat_keeps_its_conversation_and_waits(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a")
    chat.ask("before")
    before = chat.messages
    llmchat.batch(["x"], chat, world=chat._opening.world)
    assert chat.messages == before and "before" not in engine_of(chat).prompts[-1].text

    def prompts() -> Any:
        yield "x"
        with pytest.raises(UsageError, match="answering a batch"):
            chat.ask("meanwhile")

    llmchat.batch(prompts(), chat, world=chat._opening.world)


def test_a_notebook_shows_a_table(world: World) -> None:
    with_demo(world)
    found = llmchat.batch(["<b>", ""], "demo", world=world, quiet=True)
    html = found._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and "its prompt is empty" in html
