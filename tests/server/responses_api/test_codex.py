"""Codex CLI from npm against the server: one job of two rounds, as its own events report it."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.serving import HERMES, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine

# The version that was read for this test.
_PACKAGE = "@openai/codex@0.171.0"
_CONFIG = """\
model = "m"
model_provider = "llmchat"
web_search = "disabled"

[model_providers.llmchat]
name = "llmchat"
base_url = "{url}/v1"
wire_api = "responses"
"""
_COMMAND = "echo 42 > answer.txt && cat answer.txt"
_CALL = {"name": "exec_command", "arguments": {"cmd": _COMMAND}}


@pytest.fixture(scope="module")
def codex() -> Path:
    """The program, kept between runs; the test is skipped where npm cannot fetch it."""
    default = Path(tempfile.gettempdir()) / f"llmchat-clients-{os.getuid()}"
    kept = Path(os.environ.get("REAL_CLIENTS", default))
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert kept.stat().st_uid == os.getuid(), f"{kept} belongs to another user"
    folder = kept / _PACKAGE.replace("/", "+")
    program = folder / "node_modules/.bin/codex"
    if not program.exists():
        if (npm := shutil.which("npm")) is None:
            pytest.skip("needs npm")
        command = [npm, "install", "--silent", "--prefix", str(folder), _PACKAGE]
        if subprocess.run(command, capture_output=True, timeout=280).returncode:
            pytest.skip(f"npm cannot fetch {_PACKAGE}")
    return program


@pytest.mark.slow
def test_codex_runs_a_command_and_reads_its_output(codex: Path, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    (home / ".codex").mkdir(parents=True)
    work.mkdir()
    engine = ScriptedEngine(
        [f"<tool_call>\n{json.dumps(_CALL)}\n</tool_call>", "It is 42."], context=200_000
    )
    # The preset of the tests has a window of its own, which Codex's prompt does not fit.
    preset = replace(HERMES, context=replace(HERMES.context, tokens=0))
    with serving({"m": model_spec(lambda: engine, preset)}, tmp_path) as run:
        (home / ".codex/config.toml").write_text(_CONFIG.format(url=run.url))
        done = subprocess.run(
            [
                str(codex), "exec", "--json", "--skip-git-repo-check",
                "--sandbox", "danger-full-access", "Write the answer to answer.txt.",
            ],
            cwd=work,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    assert (work / "answer.txt").read_text() == "42\n", (done.stdout, done.stderr)
    (command,) = (item for item in items if item["type"] == "command_execution")
    assert command["aggregated_output"] == "42\n" and command["exit_code"] == 0
    assert [item["text"] for item in items if item["type"] == "agent_message"] == ["It is 42."]
    usage = next(event["usage"] for event in events if event["type"] == "turn.completed")
    assert usage["output_tokens"] > 0
    assert "42" in engine.prompts[-1].messages[-1].text, "the output is in the second prompt"
