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
