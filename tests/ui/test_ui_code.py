"""Numbered code blocks of a chat: /copy, /save code, and the clipboards that they reach."""

import base64
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.models.opener import ModelOpener
from llmchat.presets import find, get_format
from llmchat.ui import clipboard
from llmchat.ui.code_blocks import CodeBlock, answered_blocks, code_blocks
from llmchat.ui.repl import Repl

ANSWERS = ["```python\na = 1\n```\n\n~~~\nb\n~~~", "none here", "1. so\n   ```sh\n   ls\n   ```"]


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    world = make_world(tmp_path)
    preset = replace(find("smollm2"), format=get_format("chatml"), engine="scripted")
    return Repl(Chat(preset, ScriptedEngine(ANSWERS), History(None)), world, ModelOpener(world, {}))


def type_in(repl: Repl, *lines: str) -> str:
    stream = repl.state.world.stdout
    before = len(stream.getvalue())  # type: ignore[attr-defined]
    for line in lines:
        repl.take(line)
    return stream.getvalue()[before:]  # type: ignore[attr-defined, no-any-return]


def program(folder: Path, name: str) -> Path:
    """A program that stores its arguments and its stdin; returns where."""
    script = folder / name
    script.write_text(
        f'#!/bin/sh\necho "$@" > "{folder}/{name}.args"\ncat > "{folder}/{name}.stdin"\n'
    )
    script.chmod(0o755)
    return folder / f"{name}.stdin"


def test_blocks_are_found_as_markdown_has_them() -> None:
    text = (
        "```python x\na\n\n```\n\n    ```\n    no fence\n\n- ~~~\n  b\n  ```\n  ~~~\n\n````\n```\nc"
    )
    assert code_blocks(text) == [
        CodeBlock("python", "a\n"),
        CodeBlock("", "b\n```"),
        CodeBlock("", "```\nc"),
    ]
    assert code_blocks("a `b` c") == []


def test_only_answers_are_counted() -> None:
    fence = "```\n{}\n```"
    messages = [
        Message("user", fence.format("u")),
        Message("assistant", fence.format("a")),
        Message("assistant", fence.format("b")),
    ]
    assert [block.text for block in answered_blocks(messages)] == ["a", "b"]


def test_copy_takes_the_answer_or_a_numbered_block_of_the_chat(repl: Repl) -> None:
    assert "there is no answer yet" in type_in(repl, "/copy")
    type_in(repl, "x")
    assert "no access to a clipboard" in type_in(repl, "/copy")
    repl.state.world.stdout.tty = True  # type: ignore[attr-defined]
    for line, text in (
        ("/copy 1", "a = 1"),
        ("/copy code 2", "b"),
        ("/copy code", "b"),
        ("/copy", ANSWERS[0]),
    ):
        assert f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a" in type_in(repl, line), (
            line
        )
    type_in(repl, "y", "z")
    assert base64.b64encode(b"ls").decode() in type_in(repl, "/copy 3")
    assert "there is no code block 4" in type_in(repl, "/copy 4")


def test_code_blocks_go_on_with_their_numbers_in_a_chat(repl: Repl) -> None:
    repl.state.world.stdout.tty = True  # type: ignore[attr-defined]
    shown = type_in(repl, "x", "y", "z")
    assert all(title in shown for title in ("── python [1]", "── code [2]", "── sh [3]"))
    assert "── python [3]" in type_in(repl, "/regen") and "── sh [3]" in type_in(repl, "/alt prev")


def test_save_code_writes_a_block_and_replaces_no_file(repl: Repl, tmp_path: Path) -> None:
    type_in(repl, "x")
    assert "1 line saved to" in type_in(repl, f"/save code {tmp_path}/last.txt")
    type_in(repl, f"/save code 1 {tmp_path}/a name.py")
    assert (tmp_path / "last.txt").read_text() == "b\n" and (
        tmp_path / "a name.py"
    ).read_text() == "a = 1\n"
    assert "exists already" in type_in(repl, f"/save code {tmp_path}/last.txt")
    assert "takes a file" in type_in(repl, "/save code")
    assert "there is no code block 7" in type_in(repl, f"/save code 7 {tmp_path}/x")


def test_copy_inside_tmux_goes_through_tmux(tmp_path: Path) -> None:
    stdin = program(tmp_path, "tmux")
    world = make_world(tmp_path, tty=True, TMUX="/tmp/socket,1,0")
    world.env["PATH"] = f"{tmp_path}:{world.env['PATH']}"  # type: ignore[index]
    assert "tmux" in clipboard.copy("grüße", world)
    assert (
        stdin.read_text("utf-8") == "grüße"
        and (tmp_path / "tmux.args").read_text() == "load-buffer -w -\n"
    )
    assert world.stdout.getvalue() == ""  # type: ignore[attr-defined]


def test_copy_without_a_terminal_uses_a_local_program(tmp_path: Path) -> None:
    stdin = program(tmp_path, "xclip")
    world = make_world(tmp_path, DISPLAY=":0")
    world.env["PATH"] = f"{tmp_path}:{world.env['PATH']}"  # type: ignore[index]
    assert clipboard.copy("text", world) == "the clipboard, with xclip"
    assert stdin.read_text() == "text"
