"""The slash commands over a scripted model: what they print and what they change."""

import itertools
import json
import weakref
from pathlib import Path

import pytest
from msgspec.structs import replace
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from rich.cells import cell_len
from support.checkpoints import save_tiny
from support.repl import OWN_PRESET, said, type_in

from llmchat.chat import Chat
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import (
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NetworkError,
    OutOfResources,
    UsageError,
)
from llmchat.history import History
from llmchat.output.formatting import byte_count
from llmchat.presets import ContextPolicy, Source, get_format
from llmchat.ui import recovery, slash, status
from llmchat.ui.keys import CommandCompleter, open_block, without_block
from llmchat.ui.prompt_line import LineHistory
from llmchat.ui.repl import Repl


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
        ("/hepl", "did you mean `/help`"),
        ("/xyzzy", "there is no command /xyzzy"),
    ],
)
def test_what_looks_like_a_command_is_answered_with_advice(
    repl: Repl, line: str, hint: str
) -> None:
    assert hint in type_in(repl, line)
    assert not said(repl)


def test_nothing_happens_for_nothing(repl: Repl) -> None:
    assert type_in(repl, "", "   ", '""""""') == "" and not said(repl)


def test_regen_replaces_the_answer_and_keeps_the_old_one_in_the_history(repl: Repl) -> None:
    assert (
        type_in(repl, "hello", "/set temperature 1", "/regen")
        == "one\n\ntemperature          1.0\ntwo\n\n"
    )
    assert (
        type_in(repl, "/set temperature 0", "/regen")
        .splitlines()[1]
        .startswith("temperature 0 gives the same answer")
    )
    assert said(repl) == ["hello", "three"]
    assert {hit.snippet for hit in repl.state.chat.history.search("one")} == {"[one]"}


def test_undo(repl: Repl) -> None:
    shown = type_in(repl, "a", "b", "c", "/undo 2")
    assert shown.endswith("back to: a\n") and said(repl) == ["a", "one"]
    assert type_in(repl, "/undo", "/undo").splitlines() == [
        "back to the beginning",
        "error: there is nothing to undo",
    ]
    assert "takes a number of 1 or more" in type_in(
        repl, "/undo x"
    ) and "takes a number of 1 or more" in type_in(repl, "/undo 0")


def test_system_is_shown_and_set(repl: Repl) -> None:
    assert "no system text" in type_in(repl, "/system")
    type_in(repl, "/system Be brief.", "hello")
    assert repl.state.chat.engine.prompts[-1].text.startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n"
    )  # type: ignore[attr-defined]


def test_set_shows_changes_checks_and_resets(repl: Repl) -> None:
    assert "  temperature         0.0          randomness  a number from 0 to 5" in type_in(
        repl, "/set"
    )
    assert type_in(repl, "/set temperature 1.5") == "temperature          1.5\n"
    assert type_in(repl, "/set top_k=40") == "top_k                40\n"
    shown = type_in(repl, "/set").splitlines()
    assert [line.split()[1] for line in shown if line.startswith("*")][:2] == [
        "temperature",
        "top_k",
    ]
    assert shown[-1] == "* changed in this chat; `/set NAME default` resets it"
    assert type_in(repl, "/set temperature default") == "temperature          0.0\n"
    assert (
        type_in(repl, "/set temperature hot")
        == "error: temperature must be a number from 0 to 5, not `hot`\n"
    )
    assert (
        type_in(repl, "/set temperature 9")
        == "error: temperature must be a number from 0 to 5, not `9`\n"
    )
    assert (
        type_in(repl, "/set tempratur 1")
        == "error: there is no setting `tempratur`\nhint: did you mean `temperature`?\n"
    )
    assert repl.state.chat.sampling.temperature == 0 and repl.state.chat.sampling.top_k == 40


def test_set_changes_the_window(repl: Repl) -> None:
    assert type_in(repl, "/set policy last-n", "/set turns 1").splitlines() == [
        "policy               last-n",
        "turns                1",
    ]
    type_in(repl, "first", "second")
    assert repl.state.chat.window and repl.state.chat.window.dropped == 2
    type_in(repl, "/set policy default")
    assert repl.state.chat.preset.context == ContextPolicy("drop-oldest", tokens=8192, turns=1)
    assert "policy must be drop-oldest, last-n, summary or refuse, not `sometimes`" in type_in(
        repl, "/set policy sometimes"
    )


def test_model_goes_on_with_the_conversation(repl: Repl) -> None:
    type_in(repl, "hello")
    assert type_in(repl, "/model nowhere").startswith("error: no model is called `nowhere`\n")
    assert said(repl) == ["hello", "one"] and repl.state.chat.preset.name == "smollm2"
    assert "> who are you" in type_in(repl, "/model other", "who are you")
    assert (
        said(repl)[:3] == ["hello", "one", "who are you"]
        and repl.state.chat.sampling.temperature == 0.25
    )


def test_stats_and_context(repl: Repl) -> None:
    assert "there is no answer yet" in type_in(repl, "/stats") and "the chat is empty" in type_in(
        repl, "/context"
    )
    type_in(repl, "hello there", "again")
    assert "of them cached" in type_in(repl, "/stats")
    shown = type_in(repl, "/context").splitlines()
    assert (
        shown[0].split() == ["1", "user", "3", "sent", "hello", "there"]
        and "of 2,048 tokens used" in shown[-1]
        and len(shown) == 5
    )


def test_context_tells_what_the_kv_cache_takes(repl: Repl, tmp_path: Path) -> None:
    chat, base = repl.state.chat, save_tiny(tmp_path)
    chat.engine = TransformersEngine(base, weights="fp32", kv="int8", device="cpu")
    chat.preset = replace(chat.preset, kv="int8")
    type_in(repl, "hello there")
    shown = type_in(repl, "/context").splitlines()
    # Two layers with two heads of 16 keys and values, and a scale of two bytes for each.
    size = chat.next_window().tokens * 2 * 2 * 2 * (16 + 2)
    assert shown[-1] == f"{byte_count(size)} of KV cache as int8"


def test_what_was_dropped_is_said_when_it_happens_and_not_again(repl: Repl) -> None:
    repl.state.chat.engine.context = 200
    dropped, notes = [0], []
    for _ in range(10):
        notes.append(
            "oldest messages were not sent (window 200 tokens); /context shows which"
            in type_in(repl, "a question of some length, to fill it")
        )
        dropped.append(repl.state.chat.window.dropped)  # type: ignore[union-attr]
    assert notes == [after > before for before, after in itertools.pairwise(dropped)]
    assert 1 <= sum(notes) < 6
    assert "dropped" in type_in(repl, "/context")


def test_a_message_that_cannot_fit_is_told_and_the_chat_goes_on(repl: Repl) -> None:
    repl.state.chat.engine.context = 60
    assert type_in(repl, "word " * 100).startswith("error: the last message needs")
    assert type_in(repl, "short") == "one\n\n"
    assert [entry.fate for entry in repl.state.chat.window.ledger] == ["unanswered", "sent"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (MemoryError(), "error: memory ran out"),
        (LlmchatError("no"), "error: no"),
        (OSError("gone"), "error: gone"),
        (ZeroDivisionError("a mistake"), "error: unexpected ZeroDivisionError: a mistake"),
    ],
)
def test_a_failing_engine_does_not_end_the_chat(
    repl: Repl, failure: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise failure
        yield

    with monkeypatch.context() as patch:
        patch.setattr(repl.state.chat.engine, "stream", fail)
        assert line in type_in(repl, "hello")
    assert type_in(repl, "again") == "one\n\n"


def test_new_begins_another_session(repl: Repl) -> None:
    type_in(repl, "/system kind", "hello")
    first = repl.state.chat.session
    type_in(repl, "/new", "again")
    assert repl.state.chat.session != first and said(repl) == ["kind", "again", "two"]
    assert [session.title for session in repl.state.chat.history.sessions()] == ["again", "hello"]


def test_help_lists_every_command(repl: Repl) -> None:
    shown = type_in(repl, "/help")
    assert all(f"/{command.name}" in shown for command in slash.registry)
    assert type_in(repl, "/help undo").startswith("/undo [n]") and "did you mean" in type_in(
        repl, "/help unod"
    )


def test_every_command_has_help_that_is_a_sentence() -> None:
    for command in slash.registry:
        assert command.help.endswith(".") and command.help[0].isupper(), command.name


def test_exit_leaves() -> None:
    parsed = slash.parse("/quit")
    assert not isinstance(parsed, str)
    with pytest.raises(slash.LeaveRepl):
        parsed[0].run(None, "")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        slash.parse("/nosuch")


def test_the_bottom_line_fits_any_width(repl: Repl) -> None:
    repl.state.chat.engine.context = 120
    type_in(repl, *["a question of some length"] * 6)
    whole = status.bottom_line(repl.state.chat, 200)
    assert (
        whole.startswith(" scripted · ")
        and "/120 tokens" in whole
        and "dropped" in whole
        and "tok/s" in whole
    )
    for width in range(1, 80):
        assert cell_len(status.bottom_line(repl.state.chat, width)) == width
    long_name = "a-model-with-a-name-that-is-rather-long"
    repl.state.chat.engine.describe = lambda: long_name  # type: ignore[method-assign]
    narrow = status.bottom_line(repl.state.chat, len(whole.rstrip()) + 5)
    assert narrow.startswith(" a-model-w") and "…" in narrow and "tok/s" in narrow


def test_the_bottom_line_after_undo_tells_nothing_of_the_answer_that_is_gone(repl: Repl) -> None:
    type_in(repl, "one question")
    before = status.bottom_line(repl.state.chat, 100)
    type_in(repl, "another one", "/undo")
    after = status.bottom_line(repl.state.chat, 100)
    assert "tok/s" in before and "tok/s" not in after
    assert "tokens" in after and "tokens" not in (
        type_in(repl, "/undo") and status.bottom_line(repl.state.chat, 100)
    )


def test_an_empty_answer_shows_a_note(repl: Repl) -> None:
    repl.state.chat.engine._replies = ("",)  # type: ignore[attr-defined]
    assert type_in(repl, "hello") == "[the model gave an empty answer; /regen asks again]\n\n"


def test_a_cut() -> None:
    assert status.cut("日本語", 4) == "日…" and status.cut("日本", 4) == "日本"


def test_blocks() -> None:
    assert open_block('"""a') and not open_block('"""a"""') and not open_block("a")
    assert (
        without_block('"""a\nb"""') == "a\nb"
        and without_block("plain") == "plain"
        and without_block('"""') == '"""'
    )


def test_alternatives_are_shown_one_after_another(repl: Repl) -> None:
    assert "the chat is empty" in type_in(repl, "/alt")
    type_in(repl, "hello", "/set temperature 1", "/regen")
    last = said(repl)[-1]
    shown = type_in(repl, "/alt prev")
    assert shown.startswith("answer 1 of 2:\n") and said(repl)[-1] != last
    assert type_in(repl, "/alt") == f"answer 2 of 2:\n{last}\n\n"
    assert "this is the last of 2 answers" in type_in(repl, "/alt next")


def test_continue_goes_on_inside_the_answer(repl: Repl) -> None:
    type_in(repl, "/set max_tokens 1", "hello")
    stored = repl.state.chat._stored
    stored.conversation = stored.conversation.undo().say("hello").answer("It was")
    assert type_in(repl, "/continue") == "two\n\n"
    assert said(repl)[-1] == "It wastwo" and len(said(repl)) == 2
    assert repl.state.chat.engine.prompts[-1].text.endswith("<|im_start|>assistant\nIt was")  # type: ignore[attr-defined]
    assert "there is no answer to continue" in type_in(repl, "/new", "/continue")


def test_a_file_goes_with_the_next_message(repl: Repl, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words of a file\n")
    assert type_in(repl, "/file") == "nothing is attached\n"
    assert "9 tokens of a window of 2,048" in type_in(repl, f"/file {tmp_path / 'a.txt'}")
    assert "with next" in type_in(repl, "/file", "hello", f"/file {tmp_path / 'a.txt'}", "/context")
    assert repl.state.chat.conversation.messages[0].input == "some words of a file"
    assert "nothing is attached" in type_in(repl, "/file off") and "attached" in type_in(
        repl, "/context"
    )
    assert "cannot be read" in type_in(repl, "/file /nowhere/at/all")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in type_in(repl, f"/file {tmp_path / 'b.bin'}")


def test_pin_drop_and_unpin(repl: Repl) -> None:
    type_in(repl, "a", "b")
    assert "message 1 and its turn are always sent: a" in type_in(repl, "/pin 1")
    assert [line.split()[3] for line in type_in(repl, "/context").splitlines()[:2]] == [
        "pinned",
        "pinned",
    ]
    type_in(repl, "/drop 1", "c")
    assert "\na\n" not in repl.state.chat.engine.prompts[-1].text.replace("<|im_end|>", "\n")  # type: ignore[attr-defined]
    type_in(repl, "/unpin 1", "d")
    assert "user\na<" in repl.state.chat.engine.prompts[-1].text  # type: ignore[attr-defined]
    assert "there is no message 99" in type_in(repl, "/pin 99") and "takes a number" in type_in(
        repl, "/drop x"
    )


def test_context_as_json(repl: Repl) -> None:
    type_in(repl, "a")
    value = json.loads(type_in(repl, "/context --json"))
    assert [entry["fate"] for entry in value["ledger"]] == ["sent", "sent"] and value[
        "limit"
    ] == 2048


@pytest.mark.parametrize("width", [30, 40, 80])
def test_context_stays_in_the_window(repl: Repl, width: int) -> None:
    type_in(
        repl,
        "a question of some length, to fill the line and more than that",
        "日本語の長い質問" * 5,
    )
    repl.state.width = lambda: width
    assert all(cell_len(line) < width for line in type_in(repl, "/context").splitlines()[:-1])


def test_compact(repl: Repl) -> None:
    shown = type_in(repl, "a", "/compact", "b")
    assert "[summary]\ntwo" in shown and "tokens replaced by a summary of 1" in shown
    assert repl.state.chat.window and repl.state.chat.window.messages[0].text.endswith("two")


def test_sessions_load_rename_fork_save_export(repl: Repl, tmp_path: Path) -> None:
    assert "the chat is empty" in type_in(repl, "/fork") and "is not saved" in type_in(
        repl, "/save"
    )
    type_in(repl, "first question")
    first = repl.state.chat.session or ""
    type_in(repl, "/rename A new name")
    assert "continuing in " in type_in(repl, "/fork") and repl.state.chat.session != first
    type_in(repl, "second question")
    assert first in type_in(repl, "/sessions") and "[second]" in type_in(repl, "/sessions second")
    assert "A new name · just now · smollm2" in type_in(repl, f"/load {first[:6]}") and said(
        repl
    ) == ["first question", "one"]
    assert (
        "saved to" in type_in(repl, f"/export {tmp_path / 'a.md'}")
        and "first question" in (tmp_path / "a.md").read_text()
    )
    assert "exists" in type_in(repl, f"/export {tmp_path / 'a.md'}") and "must end in" in type_in(
        repl, "/export a.doc"
    )


def test_show(repl: Repl) -> None:
    type_in(repl, "hello")
    assert "<|im_start|>user\nhello<|im_end|>" in type_in(repl, "/show prompt")
    assert type_in(repl, "/show license") == "Apache-2.0\n"
    assert "im_start" in type_in(repl, "/show template") and "smollm2" in type_in(
        repl, "/show info"
    )
    assert "/show takes" in type_in(repl, "/show")


def test_set_takes_lists_and_tables_as_json(repl: Repl) -> None:
    assert type_in(repl, '/set logit_bias {"5": -1.5}') == 'logit_bias           {"5":-1.5}\n'
    assert type_in(repl, '/set dry_sequence_breakers=["=", "\\n"]').endswith('["=","\\n"]\n')
    sampling = repl.state.chat.sampling
    assert (sampling.logit_bias, sampling.dry_sequence_breakers) == ({5: -1.5}, ("=", "\n"))
    assert "of token ids and numbers from -100 to 100, not `5`" in type_in(
        repl, "/set logit_bias 5"
    )
    type_in(repl, "/set logit_bias default")
    assert repl.state.chat.sampling.logit_bias == {}


def test_set_shows_ranges(repl: Repl) -> None:
    shown = type_in(repl, "/set")
    assert "…" not in shown and "last-n, summary or refuse" in shown
    assert (
        "0 to 5" in shown
        and "drop-oldest, last-n, summary" in shown
        and "above 0, up to 1" in shown
    )


def test_think_folds_thoughts(repl: Repl) -> None:
    repl.state.chat.engine._replies = ("<think>hmm</think>yes",)  # type: ignore[attr-defined]
    assert type_in(repl, "a") == "[thinking]\nhmm\n\nyes\n\n"
    shown = "thinking: as the model decides, no budget, hidden\n[thinking]\n\nyes\n\n"
    assert type_in(repl, "/think hide", "b") == shown
    assert "medium, high, budget N, show or hide, not `maybe`" in type_in(repl, "/think maybe")


def test_think_sets_the_level_and_the_budget_of_the_chat(repl: Repl) -> None:
    chat = repl.state.chat
    assert "does not think" in type_in(repl, "/think high") and not chat.settings
    switch = "{{ messages[-1].content }}{% if not enable_thinking %}<think></think>{% endif %}"
    form = get_format("template").with_template(switch, {})
    chat.use_preset(replace(chat.preset, format=form), chat.sampling)
    assert type_in(repl, "/think off") == "thinking: off, no budget, shown\n"
    type_in(repl, "a")
    assert chat.engine.prompts[-1].text == "a<think></think>"  # type: ignore[attr-defined]
    assert type_in(repl, "/think budget 50") == "thinking: off, at most 50 tokens, shown\n"
    assert chat.settings == {"think": "off", "think_budget": 50}
    assert "of 0 or more, not `x`" in type_in(repl, "/think budget x")
    type_in(repl, "/think on", "b")
    assert chat.engine.prompts[-1].text == "b"  # type: ignore[attr-defined]
    assert "as the model decides, no budget" in type_in(repl, "/think default")
    assert not chat.settings


def test_edit_asks_the_changed_question(repl: Repl) -> None:
    type_in(repl, "a", "b")
    repl.state.edit_text = lambda text: text.upper()
    type_in(repl, "/edit")
    assert (
        said(repl)[:3] == ["a", "one", "B"]
        and len(repl.state.chat.history.tree(repl.state.chat.session or "")) == 6
    )


def test_completion_offers_what_is_valid_now(repl: Repl, tmp_path: Path) -> None:
    def offers(line: str) -> list[str]:
        return [
            one.text
            for one in CommandCompleter(repl.state).get_completions(Document(line), CompleteEvent())
        ]

    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    assert "regen" in offers("/re") and "rename" in offers("/re")
    assert offers("/set temp") == ["temperature"] and "policy summary" in offers("/set policy ")
    assert offers(f"/file {tmp_path}/no") == [f"{tmp_path}/notes.txt"] and offers(
        f"/file {tmp_path}/fo"
    ) == [f"{tmp_path}/folder/"]
    assert offers("/model ") == ["other"], "only what is on this machine"
    type_in(repl, "hello")
    assert offers("/load ") == [repl.state.chat.session]


@pytest.mark.parametrize(
    ("error", "labels"),
    [
        (
            OutOfResources("memory ran out"),
            ["a window of 1,024 tokens", "int4 weights", "other instead"],
        ),
        (OutOfResources("the disk is full; x could not be written"), ["continue without saving"]),
        (NetworkError("the connection was lost"), ["try again"]),
        (ModelNotFound("gone"), []),
        (UsageError("no"), []),
    ],
)
def test_an_error_comes_with_ways_out(repl: Repl, error: LlmchatError, labels: list[str]) -> None:
    type_in(repl, "hello")
    assert [
        offer.label for offer in recovery.actions_for(error, repl.state, lambda: None)
    ] == labels


def test_the_ways_out_are_taken(repl: Repl) -> None:
    type_in(repl, "hello")
    window, _, other = recovery.actions_for(
        OutOfResources("memory ran out"), repl.state, lambda: None
    )
    window.run()
    assert repl.state.chat.current_window().limit == 1024
    other.run()
    assert repl.state.chat.preset.name == "other" and said(repl) == ["hello", "one"]
    recovery.actions_for(OutOfResources("the disk is full"), repl.state, lambda: None)[0].run()
    assert "> more" in type_in(repl, "more") and said(repl)[:3] == ["hello", "one", "more"]


def test_a_full_gpu_offers_the_cpu(repl: Repl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl.state.chat.engine, "describe", lambda: "smollm2 int8 cuda")
    labels = [
        offer.label
        for offer in recovery.actions_for(
            OutOfResources("the GPU is full"), repl.state, lambda: None
        )
    ]
    assert "the same on the CPU" in labels


def test_trying_again_asks_the_question_again_without_doubling_it(
    repl: Repl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise NetworkError("the connection was lost")
        yield

    stream = repl.state.chat.engine.stream
    monkeypatch.setattr(repl.state.chat.engine, "stream", fail)
    assert "[1] try again" in type_in(repl, "hello")
    monkeypatch.setattr(repl.state.chat.engine, "stream", stream)
    repl.choose(1)
    assert said(repl) == ["hello", "one"]


def test_the_editor_of_the_user_is_opened(
    repl: Repl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/hello/goodbye/ "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    type_in(repl, "hello there", "/edit")
    assert said(repl)[0] == "goodbye there"
    monkeypatch.setenv("VISUAL", "/nowhere/editor")
    assert "hint: set VISUAL or EDITOR to your editor" in type_in(repl, "/edit")
    assert said(repl)[0] == "goodbye there"


@pytest.mark.parametrize("fits_alone", [True, False])
def test_two_models_that_do_not_fit_side_by_side(
    repl: Repl, fits_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one makes room first; it comes back when the other does not fit even so."""
    (repl.state.world.own_presets / "mine.toml").write_text(OWN_PRESET.format(parameters=5))
    type_in(repl, "/model mine", "hello")
    old = weakref.ref(repl.state.chat.engine)
    opening = repl.state.opener.open

    def open_if_it_fits(**changes: object) -> object:
        if old() is not None or not fits_alone:
            raise OutOfResources("other needs more memory than there is")
        return opening(**changes)  # type: ignore[arg-type]

    monkeypatch.setattr(repl.state.opener, "open", open_if_it_fits)
    shown = type_in(repl, "/model other")
    assert old() is None, "nothing holds the old one"
    assert ("error: other needs more memory" in shown) is not fits_alone
    assert repl.state.chat.preset.name == ("other" if fits_alone else "mine")
    assert "> and now" in type_in(repl, "and now") and len(said(repl)) == 4


def test_a_full_disk_becomes_an_offer_and_the_chat_goes_on(repl: Repl, tmp_path: Path) -> None:
    before = repl.state.chat
    chat = Chat(before.preset, before.engine, History(tmp_path / "full.db"))
    repl.state.chat = chat
    type_in(repl, "saved")
    database = chat.history._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    assert "error: the disk is full" in type_in(
        repl, "word " * 5000
    ) and "[1] continue without saving" in type_in(repl, "/continue", "word " * 5000)
    recovery.actions_for(OutOfResources("the disk is full"), repl.state, lambda: None)[0].run()
    assert "error" not in type_in(repl, "/new", "and now", "/undo") and chat.history.path is None
    with History(tmp_path / "full.db") as kept:
        assert kept.search("saved")


def test_a_line_that_cannot_be_kept_does_not_end_the_chat() -> None:
    LineHistory("/dev/full").store_string("a line")
    with pytest.raises(OSError):
        FileHistory("/dev/full").store_string("a line")


@pytest.mark.parametrize(
    "error", [Mismatch("made for another base"), IntegrityError("it is damaged")]
)
def test_a_broken_adapter_can_be_left_out(repl: Repl, error: LlmchatError) -> None:
    assert recovery.actions_for(error, repl.state, lambda: None) == []
    repl.state.chat.preset = replace(repl.state.chat.preset, adapters=(Source("path", "/broken"),))
    assert [offer.label for offer in recovery.actions_for(error, repl.state, lambda: None)] == [
        "continue without the adapter"
    ]
