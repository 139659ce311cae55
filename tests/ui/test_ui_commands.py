"""The slash commands over a scripted model: what they print and what they change."""

import itertools
from pathlib import Path

import pytest
from conftest import make_world
from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.engines import Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import LlmchatError, UsageError
from llmchat.history import History
from llmchat.opening import Opener
from llmchat.presets import ContextPolicy, Preset, find, get_format
from llmchat.ui import commands, status
from llmchat.ui.keys import open_block, without_block
from llmchat.ui.repl import Repl


def preset(**changes: object) -> Preset:
    return replace(find("smollm2"), format=get_format("chatml"), engine="scripted", sampling=Sampling(temperature=0.0), **changes)


OWN_PRESET = """
format = "chatml"
engine = "scripted"
parameters = {parameters}
[base]
kind = "path"
repo = "/nowhere"
[sampling]
temperature = 0.25
"""


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    world = make_world(tmp_path)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "other.toml").write_text(OWN_PRESET.format(parameters=1000))
    chat = Chat(preset(), ScriptedEngine(["one", "two", "three"]), History(None))
    return Repl(chat, world, Opener(world, {"weights": "bf16"}))


def type_in(repl: Repl, *lines: str) -> str:
    """Take the lines and return what was shown since."""
    stream = repl.talk.world.stdout
    before = len(stream.getvalue())  # type: ignore[attr-defined]
    for line in lines:
        repl.take(line)
    return stream.getvalue()[before:]  # type: ignore[attr-defined, no-any-return]


def said(repl: Repl) -> list[str]:
    return [message.text for message in repl.talk.chat.conversation.messages]


def test_text_is_sent_and_answered(repl: Repl) -> None:
    assert type_in(repl, "hello") == "one\n\n"
    assert said(repl) == ["hello", "one"]


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("//help me", "/help me"),
        ("/etc/hosts", "/etc/hosts"),
        ("/usr/bin/env python", "/usr/bin/env python"),
        ("...", "..."),
        (".5 is a half", ".5 is a half"),
        ('"""\na\nb\n"""', "a\nb"),
    ],
)
def test_what_is_no_command_is_sent(repl: Repl, line: str, sent: str) -> None:
    type_in(repl, line)
    assert said(repl)[0] == sent


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("!help", "did you mean /help"),
        ("!!undo", "did you mean /undo"),
        (".exit", "did you mean /exit"),
        ("/hepl", "did you mean `help`"),
        ("/xyzzy", "there is no command /xyzzy"),
    ],
)
def test_what_looks_like_a_command_is_answered_with_advice(repl: Repl, line: str, hint: str) -> None:
    assert hint in type_in(repl, line)
    assert not said(repl)


def test_nothing_happens_for_nothing(repl: Repl) -> None:
    assert type_in(repl, "", "   ", '""""""') == "" and not said(repl)


def test_regen_replaces_the_answer_and_keeps_the_old_one_in_the_history(repl: Repl) -> None:
    assert type_in(repl, "hello", "/set temperature 1", "/regen") == "one\n\ntemperature          1.0\ntwo\n\n"
    assert type_in(repl, "/set temperature 0", "/regen").splitlines()[1].startswith("temperature 0 gives the same answer")
    assert said(repl) == ["hello", "three"]
    assert {hit.snippet for hit in repl.talk.chat.history.search("one")} == {"[one]"}


def test_undo(repl: Repl) -> None:
    shown = type_in(repl, "a", "b", "c", "/undo 2")
    assert shown.endswith("back to: a\n") and said(repl) == ["a", "one"]
    assert type_in(repl, "/undo", "/undo").splitlines() == ["back to the beginning", "error: there is nothing to undo"]
    assert "takes a number from 1 on" in type_in(repl, "/undo x") and "takes a number from 1 on" in type_in(repl, "/undo 0")


def test_system_is_shown_and_set(repl: Repl) -> None:
    assert "no system text" in type_in(repl, "/system")
    type_in(repl, "/system Be brief.", "hello")
    assert repl.talk.chat.engine.prompts[-1].text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")  # type: ignore[attr-defined]


def test_set_shows_changes_checks_and_resets(repl: Repl) -> None:
    assert "temperature          0.0" in type_in(repl, "/set")
    assert type_in(repl, "/set temperature 1.5") == "temperature          1.5\n"
    assert type_in(repl, "/set top_k=40") == "top_k                40\n"
    assert type_in(repl, "/set temperature default") == "temperature          0.0\n"
    assert type_in(repl, "/set temperature hot").startswith("error: `temperature` cannot be hot: expected `float`")
    assert type_in(repl, "/set temperature 9") == "error: `temperature` cannot be 9: expected `float` <= 5.0\n"
    assert type_in(repl, "/set tempratur 1") == "error: there is no setting `tempratur`\nhint: did you mean `temperature`?\n"
    assert repl.talk.chat.sampling.temperature == 0 and repl.talk.chat.sampling.top_k == 40


def test_set_changes_the_window(repl: Repl) -> None:
    assert type_in(repl, "/set policy last-n", "/set turns 1").splitlines() == ["policy               last-n", "turns                1"]
    type_in(repl, "first", "second")
    assert repl.talk.chat.window and repl.talk.chat.window.dropped == 2
    type_in(repl, "/set policy default")
    assert repl.talk.chat.preset.context == ContextPolicy("drop-oldest", turns=1)
    assert "cannot be sometimes: invalid enum value" in type_in(repl, "/set policy sometimes")


def test_model_goes_on_with_the_conversation(repl: Repl) -> None:
    type_in(repl, "hello")
    assert type_in(repl, "/model nowhere").startswith("error: no model is called `nowhere`\n")
    assert said(repl) == ["hello", "one"] and repl.talk.chat.preset.name == "smollm2"
    assert "> who are you" in type_in(repl, "/model other", "who are you")
    assert said(repl)[:3] == ["hello", "one", "who are you"] and repl.talk.chat.sampling.temperature == 0.25


def test_stats_and_context(repl: Repl) -> None:
    assert "there is no answer yet" in type_in(repl, "/stats") and "nothing was said yet" in type_in(repl, "/context")
    type_in(repl, "hello there", "again")
    assert "of them from the cache" in type_in(repl, "/stats")
    shown = type_in(repl, "/context").splitlines()
    assert shown[0].split() == ["1", "user", "3", "sent", "hello", "there"] and "of 2,048 tokens used" in shown[-1] and len(shown) == 5


def test_what_was_dropped_is_said_when_it_happens_and_not_again(repl: Repl) -> None:
    repl.talk.chat.engine.context = 200
    dropped, notes = [0], []
    for _ in range(10):
        notes.append(
            "oldest messages were not sent (window 200 tokens); /context shows which"
            in type_in(repl, "a question of some length, to fill it")
        )
        dropped.append(repl.talk.chat.window.dropped)  # type: ignore[union-attr]
    assert notes == [after > before for before, after in itertools.pairwise(dropped)]
    assert 1 <= sum(notes) < 6
    assert "dropped" in type_in(repl, "/context")


def test_a_message_that_cannot_fit_is_told_and_the_chat_goes_on(repl: Repl) -> None:
    repl.talk.chat.engine.context = 60
    assert type_in(repl, "word " * 100).startswith("error: the last message needs")
    assert type_in(repl, "short") == "one\n\n"
    assert [entry.fate for entry in repl.talk.chat.window.ledger] == ["unanswered", "sent"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("failure", "line"), [(MemoryError(), "error: memory ran out"), (LlmchatError("no"), "error: no"), (OSError("gone"), "error: gone")]
)
def test_a_failing_engine_does_not_end_the_chat(repl: Repl, failure: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise failure
        yield

    with monkeypatch.context() as patch:
        patch.setattr(repl.talk.chat.engine, "stream", fail)
        assert line in type_in(repl, "hello")
    assert type_in(repl, "again") == "one\n\n"


def test_new_begins_another_session(repl: Repl) -> None:
    type_in(repl, "/system kind", "hello")
    first = repl.talk.chat.session
    type_in(repl, "/new", "again")
    assert repl.talk.chat.session != first and said(repl) == ["kind", "again", "two"]
    assert [session.title for session in repl.talk.chat.history.sessions()] == ["again", "hello"]


def test_help_lists_every_command(repl: Repl) -> None:
    shown = type_in(repl, "/help")
    assert all(f"/{command.name}" in shown for command in commands.registry)
    assert type_in(repl, "/help undo").startswith("/undo [n]") and "did you mean" in type_in(repl, "/help unod")


def test_every_command_has_help_that_is_a_sentence() -> None:
    for command in commands.registry:
        assert command.help.endswith(".") and command.help[0].isupper(), command.name


def test_exit_leaves() -> None:
    parsed = commands.parse("/quit")
    assert not isinstance(parsed, str)
    with pytest.raises(commands.Leave):
        parsed[0].run(None, "")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        commands.parse("/nosuch")


def test_the_bottom_line_fits_any_width(repl: Repl) -> None:
    repl.talk.chat.engine.context = 120
    type_in(repl, *["a question of some length"] * 6)
    whole = status.bottom_line(repl.talk.chat, 200)
    assert whole.startswith(" scripted · ") and "/120 tokens" in whole and "dropped" in whole and "tok/s" in whole
    for width in range(1, 80):
        assert len(status.bottom_line(repl.talk.chat, width)) <= width
    assert status.cut("日本語", 4) == "日…" and status.cut("日本", 4) == "日本"


def test_blocks() -> None:
    assert open_block('"""a') and not open_block('"""a"""') and not open_block("a")
    assert without_block('"""a\nb"""') == "a\nb" and without_block("plain") == "plain" and without_block('"""') == '"""'
