"""One answer for a pipe: --extract, and what an empty answer leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.worlds import make_world

from llmchat import cli
from llmchat.chat import Chat
from llmchat.commands import one_shot
from llmchat.conversation import Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import LlmchatError
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.settings import World

CODE = "Here:\n\n```python\na = 1\nb = 2\n```\n\n```\nsecond\n```"


def answer(home: Path, reply: str, *, tty: bool = False, **how: Any) -> tuple[int, World]:
    world = make_world(home, tty=tty)
    chat = Chat(
        replace(find("smollm2"), format=get_format("chatml"), engine="scripted"),
        ScriptedEngine([reply]),
        History(None),
    )
    return one_shot.run(chat, world, Message("user", "q"), one_shot.Output(**how)), world


def test_extract_prints_the_first_code_block_alone(tmp_path: Path) -> None:
    for tty in (False, True):
        code, world = answer(tmp_path, CODE, extract=True, tty=tty)
        assert (code, world.stdout.getvalue()) == (0, "a = 1\nb = 2\n")  # type: ignore[attr-defined]


def test_extract_with_json_is_a_field_beside_the_text(tmp_path: Path) -> None:
    _, world = answer(tmp_path, CODE, extract=True, json=True)
    shown = json.loads(world.stdout.getvalue())  # type: ignore[attr-defined]
    assert (shown["text"], shown["code"]) == (CODE, "a = 1\nb = 2")
    _, world = answer(tmp_path, CODE, json=True)
    assert "code" not in json.loads(world.stdout.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("as_json", [False, True])
def test_extract_fails_where_there_is_no_code_block(as_json: bool, tmp_path: Path) -> None:
    with pytest.raises(LlmchatError, match="the answer has no code block") as raised:
        answer(tmp_path, "no code", extract=True, json=as_json)
    assert raised.value.exit_code == 1


def test_what_was_read_is_kept_where_extract_finds_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str | None] = []
    monkeypatch.setattr(
        "llmchat.models.saved_kv.keep", lambda engine, session, *_: kept.append(session)
    )
    assert cli.main(["chat", "--engine", "scripted", "-x", "Hello"], make_world(tmp_path)) == 1
    assert len(kept) == 1 and kept[0]


def test_an_empty_answer_is_noted_on_stderr(tmp_path: Path) -> None:
    code, world = answer(tmp_path, "")
    assert (code, world.stdout.getvalue()) == (0, "")  # type: ignore[attr-defined]
    assert world.stderr.getvalue() == "note: the model gave an empty answer\n"  # type: ignore[attr-defined]
    _, world = answer(tmp_path, "", quiet=True)
    assert world.stderr.getvalue() == ""  # type: ignore[attr-defined]


def several(home: Path, **how: Any) -> tuple[Chat, str]:
    world = make_world(home)
    form = replace(find("smollm2"), format=get_format("chatml"), engine="scripted")
    chat = Chat(form, ScriptedEngine(["one", "two", "three"]), History(home / "history.db"))
    chat.set({"seed": 7})
    output = one_shot.Output(answers=3, **how)
    assert one_shot.run(chat, world, Message("user", "q"), output) == 0
    return chat, world.stdout.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [True, False])
def test_several_answers_are_printed_apart(tmp_path: Path, stream: bool) -> None:
    chat, shown = several(tmp_path, stream=stream)
    headed = [
        f"--- answer {number} of 3 ---\n{text}\n"
        for number, text in enumerate(("one", "two", "three"), 1)
    ]
    assert shown == "\n".join(headed)
    assert chat.sampling.seed == 7


def test_several_answers_are_alternatives_of_one_question(tmp_path: Path) -> None:
    chat, shown = several(tmp_path, json=True)
    answer = json.loads(shown)
    assert [(one["text"], one["seed"]) for one in answer["answers"]] == [
        ("one", 7),
        ("two", 8),
        ("three", 9),
    ]
    assert answer["text"] == "one" and answer["seed"] == 7
    assert [message.text for message in chat.conversation.spoken] == ["q", "three"]
    assert chat.show_alternative(-1) == (2, 3)
    assert chat.conversation.spoken[-1].text == "two"


def test_several_answers_need_a_question_and_whole_texts(tmp_path: Path) -> None:
    for flags, told in (
        (["-x", "Hello"], "--answers and --extract exclude each other"),
        (["--answers", "0", "Hello"], "greater than or equal to 1"),
    ):
        world = make_world(tmp_path)
        assert cli.main(["chat", "--engine", "scripted", "--answers", "2", *flags], world) == 2
        assert told in world.stderr.getvalue()  # type: ignore[attr-defined]
