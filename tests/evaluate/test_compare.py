"""Compare models on the same prompts: prompt sources, three output forms, whole commands."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.command_line import Run
from support.scripted_models import LIVE, SCRIPTED, TWO
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.evaluate.candidates import find_candidates
from llmchat.evaluate.compare import as_html, compare, for_json, read_prompts, show
from llmchat.settings import World


def texts(world: World, *words: str, files: tuple[str, ...] = ()) -> list[str]:
    return [one.messages[-1].text for one in read_prompts(world, words, files)]


def test_prompts_come_from_words_files_and_pipes(tmp_path: Path) -> None:
    plain, wire = tmp_path / "plain.txt", tmp_path / "wire.jsonl"
    plain.write_text("one\n\n  two {braces}  \n")
    wire.write_text(
        '{"prompt": "three", "system": "s", "input": "i"}\n'
        '{"messages": [{"role": "user", "content": "four"}]}\n'
    )
    assert texts(make_world(tmp_path, "piped\n"), "zero", "-", files=(str(plain), str(wire))) == [
        "zero",
        "piped",
        "one",
        "two {braces}",
        "three",
        "four",
    ]
    assert read_prompts(make_world(tmp_path), [], [str(wire)])[0].messages == (
        Message("system", "s"),
        Message("user", "three", "i"),
    )
    assert texts(make_world(tmp_path, "a\nb\n")) == ["a", "b"]


def test_mistakes_of_prompts_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no prompt"):
        read_prompts(make_world(tmp_path, tty=True), [], [])
    with pytest.raises(UsageError, match="the input is empty"):
        read_prompts(make_world(tmp_path, "\n"), [], [])
    for line, said in (
        ('{"promt": "a"}', "unknown field `promt`"),
        ("{}", "it needs a `prompt` or `messages`"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "the last message must be the user's",
        ),
        ('{"messages": [{"role": "boss", "content": "a"}]}', "Invalid enum value 'boss'"),
    ):
        with pytest.raises(UsageError, match=rf"stdin, line 1: .*{re.escape(said)}"):
            read_prompts(make_world(tmp_path, line), [], [])


def answers(model: str, question: str) -> str:
    return {"same": "just so", "differ": f"I am {model}", "wild": "<b>&\x1b[31m[red]"}[question]


def made(world: World, *prompts: str) -> Any:
    return compare(
        find_candidates(TWO, SCRIPTED, world), read_prompts(world, prompts, []), world, quiet=True
    )


def test_under_each_other_where_there_is_no_room(world: World, scripted_models: Any) -> None:
    scripted_models(answers)
    show(made(world, "same", "differ", "wild"), world)
    shown = re.sub(r"[\d.]+ tok/s", "N tok/s", world.stdout.getvalue())  # type: ignore[attr-defined]
    assert shown == (
        "[1] same\n\nsmollm2 (3 tokens, N tok/s, stop)\njust so\n\n"
        "alpaca-lora-7b (3 tokens, N tok/s, stop, = smollm2)\njust so\n\n"
        "[2] differ\n\nsmollm2 (5 tokens, N tok/s, stop)\nI am smollm2\n\n"
        "alpaca-lora-7b (9 tokens, N tok/s, stop)\nI am alpaca-lora-7b\n\n"
        "[3] wild\n\nsmollm2 (10 tokens, N tok/s, stop)\n<b>&\ufffd[31m[red]\n\n"
        "alpaca-lora-7b (10 tokens, N tok/s, stop, = smollm2)\n<b>&\ufffd[31m[red]\n\n"
    )
    assert not LIVE, "no model is left in memory"


@pytest.mark.parametrize(("columns", "beside"), [(100, True), (60, False)])
def test_side_by_side_on_a_terminal_that_is_wide_enough(
    tmp_path: Path, scripted_models: Any, columns: int, beside: bool
) -> None:
    scripted_models(answers)
    world = make_world(tmp_path, tty=True, COLUMNS=str(columns))
    show(made(world, "differ"), world)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", world.stdout.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert any("I am smollm2" in line and "I am alpaca-lora-7b" in line for line in lines) is beside
    assert max(map(len, lines)) <= columns


def test_what_was_answered_before_ctrl_c_is_kept(world: World, scripted_models: Any) -> None:
    scripted_models(
        lambda model, question: (
            KeyboardInterrupt() if (model, question) == ("alpaca-lora-7b", "b") else question
        )
    )
    result = made(world, "a", "b")
    assert result.interrupted and [len(one) for one in result.answers] == [2, 1]
    assert for_json(result).interrupted and "Interrupted" in as_html(result)


def test_a_prompt_that_is_too_large_is_told_beside_the_others(
    world: World, scripted_models: Any
) -> None:
    scripted_models(lambda model, question: "fine")
    result = made(world, "word " * 3000, "short")
    assert (
        "window of 2,048" in result.answers[0][0].error
        and result.answers[0][1].same_as == ""
        and result.answers[1][1].same_as == "smollm2"
    )


class Page(HTMLParser):
    """Tags and text of a page, and whatever would be fetched for it."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            str(value)
            for name, value in attributes
            if name in ("src", "href", "srcset", "data", "action")
        ]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_nothing_and_runs_nothing(world: World, scripted_models: Any) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)></pre>"
    scripted_models(lambda model, question: attack)
    result = made(world, attack)
    result.models[0] += "<i>"
    result.answers[0][0] = replace(result.answers[0][0], model="<u>", thinking="</details><s>")
    page = Page(as_html(result))
    assert (
        not {"script", "img", "i", "u", "s", "link", "iframe"} & set(page.tags)
        and page.fetched == []
    )
    assert (
        page.words.count(attack) == 3
        and page.tags.count("article") == 2
        and "decode speed: alpaca-lora-7b " in page.words
        and "</details><s>" in page.words
    )
    assert (
        "default-src 'none'" in as_html(result)
        and "url(" not in as_html(result)
        and "color-scheme: light dark" in as_html(result)
    )


@pytest.mark.slow
def test_a_whole_comparison_of_the_default_model(smol: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    question = "What is the capital of France?"
    done = smol(
        "compare",
        "-m",
        "smollm2",
        "-m",
        "smollm2:off",
        "--max-tokens",
        "12",
        "--json",
        "--html",
        str(page),
        "-",
        stdin=question + "\n",
    )
    result = json.loads(done.stdout)
    one, other = result["prompts"][0]["answers"]
    assert (
        done.returncode == 0
        and done.stderr == f"smollm2: 1 item\nsmollm2:off: 1 item\nwritten to {page}\n"
    )
    assert (
        "Paris" in one["text"]
        and other["text"] == one["text"]
        and other["same_as"] == "smollm2"
        and one["reply_tokens"] > 3
    )
    assert "Paris" in Page(page.read_text()).words
    done = smol(
        "compare",
        "-m",
        "smollm2",
        "-s",
        "Answer in French.",
        "--engine",
        "scripted",
        "Bonjour",
        "-q",
    )
    assert (
        done.returncode == 0
        and done.stdout.startswith("[1] Bonjour\n\nsmollm2 (")
        and "> Bonjour" in done.stdout
    )


def test_models_and_a_prompt_need_no_flags(tmp_path: Path) -> None:
    from llmchat.commands.evaluate import _parted

    assert _parted(["a", "b", "Hello"], file=False) == (["a", "b"], ["Hello"])
    assert _parted(["a", "b"], file=True) == (["a", "b"], [])
    with pytest.raises(UsageError, match="no model to compare"):
        _parted(["Hello"], file=False)
