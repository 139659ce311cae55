"""Attacks by chat templates: each ends within bounded time and memory.

A server that renders one still obeys SIGTERM.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.checkpoints import save_tiny
from support.template_attacks import ATTACKS

from llmchat import chat_template
from llmchat.chat_template.budget import MAX_SECONDS
from llmchat.errors import Mismatch

TESTS = Path(__file__).parents[1]
# Those that use a large part of the time limit.
LONG = (
    "strftime in a loop", "doubling by a call block", "keeping dicts", "keeping lists in names",
    "searches in a loop", "items in a list", "sorting", "sorting long texts", "unique", "slices",
    "splitting", "reversing", "filtered loop", "loop in loop", "recursive loop",
    "macros call macros", "lazy maps", "items of a range", "length of a loop", "loops of cycles",
    "many conditions", "many assignments", "many macros", "many loops", "many blocks",
    "many elifs", "many names", "a long list", "translate in a loop", "tojson in a loop",
    "count of characters", "comparisons in an expression", "searches in an expression",
    "nested by a namespace", "keeping texts", "keeping slices", "keeping set blocks",
    "endless output", "output of a constant", "many comments", "many openings",
    "white space before tags",
)  # fmt: skip
MEMORY_MB = 700


def check_attacks(names: list[str]) -> None:
    victim = subprocess.run(
        [sys.executable, "-m", "support.template_victim"],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        timeout=280,
        cwd=TESTS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    rows = [json.loads(line) for line in victim.stdout.splitlines()]
    assert [row[0] for row in rows] == names and victim.returncode == 0, victim.stderr[-1000:]
    for name, seconds, peak_mb, changed, outcome in rows:
        assert seconds < 3 * MAX_SECONDS, (name, seconds)
        assert peak_mb < MEMORY_MB, (name, peak_mb)
        assert not changed, name
        assert "\n" not in outcome and len(outcome) < 500, name


def test_short_attacks_end() -> None:
    check_attacks([name for name in ATTACKS if name not in LONG])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_long_attacks_end() -> None:
    check_attacks(list(LONG))


REFUSED = (
    "translate", "sum of lists", "strftime with a width", "lipsum", "count of a range", "odd text",
    "doubling by a macro", "doubling by a set block", "lists in lists", "namespaces in namespaces",
    "a namespace in itself", "search from the right", "nested loops",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_attack_is_refused(name: str) -> None:
    with pytest.raises(Mismatch, match="refuses this conversation"):
        chat_template.run(ATTACKS[name], {"messages": []}, "x")


@pytest.mark.slow
def test_a_server_under_attack_obeys_sigterm(tmp_path: Path) -> None:
    tiny = save_tiny(tmp_path / "tiny")
    (tiny / "chat_template.jinja").write_text(ATTACKS["items in a list"])
    config = json.loads((tiny / "tokenizer_config.json").read_text())
    config["chat_template"] = ATTACKS["items in a list"]
    (tiny / "tokenizer_config.json").write_text(json.dumps(config))
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    arguments = ["serve", "-m", str(tiny), "--weights", "fp32", "--port", "0"]
    command = [sys.executable, "-m", "llmchat", *arguments]
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    while "serving at" not in (line := server.stderr.readline()):
        assert line, "it ended before it served"
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": str(tiny), "messages": messages}).encode()
    request = urllib.request.Request(
        f"{line.split()[-1]}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    refused: list[int] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            refused.append(error.code)

    asking, before = threading.Thread(target=ask), _ticks(server.pid)
    asking.start()
    while asking.is_alive() and _ticks(server.pid) < before + 50:
        time.sleep(0.01)
    assert asking.is_alive(), "the template is running"
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    asking.join(60)
    assert refused == [400]


def _ticks(process: int) -> int:
    """CPU time of a process, in hundredths of a second."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13]))
