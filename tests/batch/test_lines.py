"""From the lines of a file to what they ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmchat.batches import Line, lines_of, reading
from llmchat.batches.asking import ask_of
from llmchat.batches.template import Template
from llmchat.errors import UsageError
from llmchat.roles import Role
from llmchat.settings import World


def read(world: World, path: Path, content: str | bytes, template: str = "") -> list[Line]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(lines_of(world, str(path), Template(template) if template else None))


def one(world: World, tmp_path: Path, value: Any, template: str = "") -> Line:
    (line,) = read(world, tmp_path / "in.jsonl", json.dumps(value), template)
    return line


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("hello", [("user", "hello", "")]),
        ({"prompt": "hello"}, [("user", "hello", "")]),
        (
            {"prompt": "sum up", "input": "a text", "system": "be short"},
            [("system", "be short", ""), ("user", "sum up", "a text")],
        ),
        ({"instruction": "translate", "input": "un"}, [("user", "translate", "un")]),
        ({"instruction": "translate", "input": None}, [("user", "translate", "")]),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": [{"type": "text", "text": "c"}]},
                ]
            },
            [("user", "a", ""), ("assistant", "b", ""), ("user", "c", "")],
        ),
    ],
)
def test_every_form_of_a_line_is_a_conversation(
    world: World, tmp_path: Path, value: Any, messages: list[tuple[str, str, str]]
) -> None:
    ask = one(world, tmp_path, value).ask
    assert ask is not None and ask.request is None
    assert [(m.role, m.text, m.input) for m in ask.conversation.messages] == messages


def test_a_request_of_openai_keeps_its_settings(world: World, tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    line = one(world, tmp_path, {"custom_id": "a", "method": "POST", "body": body})
    assert line.id == line.key == "a" and line.ask and line.ask.request
    assert line.ask.request.max_tokens == 5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "it is not a JSON object with `prompt`, `messages`, `instruction` or `body`"),
        ({"text": "x"}, "it has none of `prompt`, `messages`, `instruction` or `body`"),
        ({"prompt": "x", "messages": []}, "it has both `prompt` and `messages`"),
        ({"prompt": 3}, "`prompt` is not a text"),
        ({"prompt": "\ud800"}, "`prompt` contains a lone surrogate"),
        ({"prompt": ""}, "its prompt is empty"),
        ({"body": 1}, "`body` is not a JSON object"),
        ({"body": {}, "url": "/v1/images"}, "requests to `/v1/images` are not supported"),
        ({"body": {"messages": []}}, "`messages`: List should have at least 1 item"),
        ({"messages": [{"role": "cat", "content": "x"}]}, "`messages.0.role`: Input should be"),
        (
            {"body": {"messages": [{"role": "user", "content": "x"}], "stream": True}},
            "`body.stream` is not supported in a batch",
        ),
        (
            {"body": {"messages": [{"role": "user", "content": "x"}], "magic": 1}},
            "`magic` is not supported",
        ),
    ],
)
def test_a_broken_line_says_what_is_wrong(
    world: World, tmp_path: Path, value: Any, message: str
) -> None:
    line = one(world, tmp_path, value)
    assert line.ask is None and line.error.startswith(message)


def test_lines_that_are_no_json_do_not_stop_the_others(world: World, tmp_path: Path) -> None:
    text = b'{"prompt": "a"}\n{"prompt":\n\n\xff\n"b"\n' + b"[" * 100_000 + b"\n"
    lines = read(world, tmp_path / "in.jsonl", text)
    assert [line.number for line in lines] == [1, 2, 4, 5, 6]
    assert [bool(line.error) for line in lines] == [False, True, True, False, True]
    assert lines[1].error.startswith("it is not JSON: Expecting value")


def test_a_line_that_is_too_long_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST", 64)
    text = json.dumps({"prompt": "x" * 500}) + '\n{"prompt": "y"}'
    first, second = read(world, tmp_path / "in.jsonl", text)
    assert first.error == "it is longer than 64 bytes" and second.number == 2 and second.ask


def test_keys_stay_the_same_and_twins_get_their_own(world: World, tmp_path: Path) -> None:
    text = '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "a"}\n{"prompt": "a"}\n'
    keys = [line.key for line in read(world, tmp_path / "in.jsonl", text)]
    assert len(set(keys)) == 4 and keys[2:] == [f"{keys[0]}#2", f"{keys[0]}#3"]
    assert keys == [line.key for line in read(world, tmp_path / "in.jsonl", text)]


def test_a_custom_id_counts_once(world: World, tmp_path: Path) -> None:
    text = '{"custom_id": "i", "prompt": "a"}\n{"custom_id": "i", "prompt": "b"}'
    _, second = read(world, tmp_path / "in.jsonl", text)
    assert second.error == "line 1 has the same custom_id, `i`"


def test_rows_of_a_csv_file_fill_a_template(world: World, tmp_path: Path) -> None:
    text = '\ufeffname, text\nx,"two\nlines"\ny\nz,"a, b"\n'
    lines = read(world, tmp_path / "in.csv", text, "{name}: {text} {{}}")
    asked = [line.ask.conversation.messages[-1].text if line.ask else "" for line in lines]
    assert asked == ["x: two\nlines {}", "", "z: a, b {}"]
    assert lines[1].error == "it has 1 column, but the first row has 2"


def test_each_line_of_a_text_file_is_a_prompt(world: World, tmp_path: Path) -> None:
    lines = read(world, tmp_path / "in.txt", "one\n\n{two}\n")
    asked = [line.ask.conversation.messages[0].text for line in lines if line.ask]
    assert asked == ["one", "{two}"]


def test_a_template_takes_values_that_are_no_texts(world: World, tmp_path: Path) -> None:
    ask = one(world, tmp_path, {"a": [1, "x"], "b": 2.5, "system": "s"}, "{a} and {b}").ask
    assert ask and [m.text for m in ask.conversation.messages] == ["s", '[1,"x"] and 2.5']


def test_a_field_that_is_missing_is_named(world: World, tmp_path: Path) -> None:
    line = one(world, tmp_path, {"text": "x"}, "{txt}")
    assert line.error == "it has no field `txt`" and "text" in line.hint


@pytest.mark.parametrize("text", ["no field", "{a", "a}", "{a} {", ""])
def test_a_template_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Template(text)


ROLE = Role(name="r", prompt="In $language: $input", values={"language": "English"}, once=True)


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("Wo?", "In English: Wo?"),
        ({"prompt": "Wo?", "language": "French"}, "In French: Wo?"),
        ({"instruction": "Wo?", "language": 5}, "In 5: Wo?"),
        ({"messages": [{"role": "user", "content": "Wo?"}]}, "In English: Wo?"),
        (
            {
                "messages": [
                    {"role": one, "content": "Wo?"} for one in ("user", "assistant", "user")
                ]
            },
            "Wo?",
        ),
        ({"body": {"messages": [{"role": "user", "content": "Wo?"}]}}, "Wo?"),
    ],
)
def test_last_question_is_in_the_words_of_a_role(value: Any, asked: str) -> None:
    assert ask_of(value, None, ROLE).conversation.messages[-1].text == asked


def test_fields_of_a_line_can_be_all_that_a_role_needs() -> None:
    role = Role(name="r", prompt="Explain this $language: $code")
    ask = ask_of({"code": "x = 1", "language": "Go"}, None, role)
    assert ask.conversation.messages[-1].text == "Explain this Go: x = 1"
    with pytest.raises(UsageError, match="the role `r` requires a value for language"):
        ask_of({"code": "x"}, None, role)
    filled = ask_of({"code": "x", "language": "C", "why": "?"}, Template("{why}"), role)
    assert filled.conversation.messages[-1].text == "Explain this C: x\n\n?"
