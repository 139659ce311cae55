"""What others wrote reaches a terminal without control sequences, and a pipe as it is."""

import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from support.repl import preset
from support.worlds import Stream, make_world

from llmchat.attachments.documents import Documents
from llmchat.chat import Chat
from llmchat.cli import main
from llmchat.commands import one_shot, render_prompt
from llmchat.conversation import Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import BranchWriter, History
from llmchat.models.opener import ModelOpener
from llmchat.output.terminal_text import HARMFUL
from llmchat.settings import World
from llmchat.ui import tables
from llmchat.ui.state import ReplState

EVIL = "\x1b]52;c;ZXZpbA==\a\x1b]0;title\a\x1b[2J\x9b31mRED\u202eabc\u2066 evil"
WORDS = "evil"
# Stands for the id of the session in the commands below.
SESSION = "SESSION"


# The looks of notes and errors, which are ours: dim, red, and back to normal.
OWN_STYLES = re.compile(r"\x1b\[(?:0|2|31)m")


def harmful(text: str) -> set[str]:
    return {char for char in OWN_STYLES.sub("", text) if ord(char) in HARMFUL}


@pytest.fixture
def terminal(tmp_path: Path) -> World:
    return make_world(tmp_path, tty=True)


@pytest.fixture
def session(terminal: World) -> str:
    with History(terminal.history_file) as history:
        line = BranchWriter(history, history.begin(EVIL))
        line.append(Message("user", EVIL, EVIL))
        line.append(Message("assistant", EVIL))
        history.rename(line.session, EVIL)
        history.tag(line.session, [EVIL])
        return line.session


def output(world: World) -> str:
    return world.stdout.getvalue() + world.stderr.getvalue()  # type: ignore[attr-defined, no-any-return]


COMMANDS = {
    "list": ["list"],
    "list json": ["list", "--json"],
    "search": ["search", "evil"],
    "show": ["show", SESSION],
    "show json": ["show", SESSION, "--json"],
    "tree": ["show", SESSION, "--tree"],
    **{
        f"export {form}": ["export", SESSION, "-f", form]
        for form in ("md", "json", "html", "jsonl")
    },
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("env", [{}, {"TERM": "dumb"}], ids=["pretty", "dumb"])
def test_a_stored_chat_does_not_drive_the_terminal(
    terminal: World,
    session: str,
    command: str,
    env: dict[str, str],
) -> None:
    world = msgspec.structs.replace(terminal, env={**terminal.env, **env})
    arguments = [session if word == SESSION else word for word in COMMANDS[command]]
    assert main(["sessions", *arguments], world) == 0
    shown = output(world)
    assert WORDS in shown
    # A table's own bold is all that may be left of escapes.
    assert not harmful(shown.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[3m", ""))
    if "json" in command.split():
        assert json.loads(shown), "still JSON"


def test_a_pipe_and_a_file_get_the_exact_text(
    terminal: World, session: str, tmp_path: Path
) -> None:
    world = msgspec.structs.replace(terminal, stdout=Stream(), stderr=Stream())
    assert main(["sessions", "show", session], world) == 0
    assert EVIL in world.stdout.getvalue()  # type: ignore[attr-defined]
    assert main(["sessions", "export", session, "-o", str(tmp_path / "out.md")], world) == 0
    assert EVIL in (tmp_path / "out.md").read_text()


def test_json_on_a_terminal_keeps_its_values(terminal: World) -> None:
    tables.print_json(terminal, {"text": EVIL})
    shown = output(terminal)
    assert not harmful(shown) and json.loads(shown) == {"text": EVIL}


@pytest.mark.parametrize(
    "line",
    [
        "/context",
        "/show prompt",
        "/sessions",
        "/sessions evil",
        f"/rename {EVIL}",
        f"/load {EVIL}x",
        f"/set {EVIL}",
    ],
)
def test_slash_commands_do_not_drive_the_terminal(terminal: World, session: str, line: str) -> None:
    from llmchat.ui.repl import Repl

    with History(terminal.history_file) as history:
        chat = Chat(preset(), ScriptedEngine(), history, session=session)
        repl = Repl(chat, terminal, ModelOpener(terminal, {}))
        repl.state.print(EVIL)
        repl.take(line)
    assert not harmful(output(terminal))


def test_a_one_shot_and_a_prompt_do_not_drive_the_terminal(terminal: World) -> None:
    for json_wanted, stream in ((True, True), (False, False), (False, True)):
        chat = Chat(preset(), ScriptedEngine([EVIL]), History(None))
        output_as = one_shot.Output(json=json_wanted, stream=stream, plain=True)
        one_shot.run(chat, terminal, Message("user", "q"), output_as)
    render_prompt._write(terminal, EVIL)
    assert not harmful(output(terminal)) and output(terminal).count(WORDS) == 4


def test_an_error_that_echoes_does_not_drive_the_terminal(terminal: World) -> None:
    for tty in (True, False):
        stream = Stream(tty=tty)
        world = msgspec.structs.replace(terminal, stderr=stream)
        assert main(["sessions", "show", EVIL], world) == 2
        assert bool(harmful(stream.getvalue())) is not tty


def test_a_line_of_the_chat_itself_is_cleaned(terminal: World) -> None:
    state = ReplState(
        Chat(preset(), ScriptedEngine(), History(None)),
        terminal,
        ModelOpener(terminal, {}),
        Documents(terminal),
    )
    state.print(EVIL)
    assert isinstance(terminal.stdout, io.StringIO) and not harmful(output(terminal))
