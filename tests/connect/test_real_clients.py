"""Programs of others, set up by `llmchat connect`, each do a job with a real model."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace
from support.command_line import LLMCHAT
from support.real_clients import npm_client, python_client
from support.real_weights import real_weights
from support.serving import CHATML, model_spec, serving, wait_until

from llmchat.engines.scripted import ScriptedEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
WRONG = 'def add(a, b):\n    """The sum of two numbers."""\n    return a - b\n'


class Server:
    """`llmchat serve` with Qwen2.5-Coder-1.5B, and the home of the user who runs it."""

    def __init__(self, home: Path, file: Path, port: int):
        self.home, self.file = home, file
        self.url = f"http://127.0.0.1:{port}"
        self.env = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb"}

    def llmchat(self, *arguments: str) -> str:
        command = [*LLMCHAT, *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def connect(self, client: str, *arguments: str) -> str:
        return self.llmchat("connect", client, "--url", self.url, *arguments)

    def run(self, *command: str | Path, cwd: Path, stdin: str = "") -> str:
        """The output of a client's command."""
        done = subprocess.run(
            [*map(str, command)],
            env=self.env,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health").is_success
        except httpx2.TransportError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    file = real_weights("qwen15", home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Server(home, file, port)
    made.llmchat("pull", str(file))
    command = [*LLMCHAT, "serve", "-m", str(file), "--port", str(port)]
    with subprocess.Popen(command, env=made.env, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(made.answers, 300)
            yield made
        finally:
            process.terminate()


def test_llm_answers_in_the_form_of_a_schema(server: Server, tmp_path: Path) -> None:
    programs = python_client("llm")
    server.connect("llm", "--write")
    model = f"llmchat/{server.file.name}"
    ask = [
        "-m",
        model,
        "-o",
        "temperature",
        "0",
        "--schema",
        "name, year int",
        "Who invented the telephone, and when?",
    ]
    found = json.loads(server.run(programs / "llm", *ask, cwd=tmp_path))
    assert set(found) == {"name", "year"} and "Bell" in found["name"]
    assert model in server.run(programs / "llm", "logs", "-n", "1", cwd=tmp_path)


# What `llmchat connect langchain` prints, and then a tool and a structured answer.
MORE_OF_LANGCHAIN = """
from langchain_core.tools import tool
from pydantic import BaseModel

@tool
def weather(city: str) -> str:
    "Get the weather of a city."
    return "sunny"

print(model.bind_tools([weather], tool_choice="weather").invoke("Weather in Paris?").tool_calls)

class Person(BaseModel):
    name: str
    year: int

print(model.with_structured_output(Person).invoke("Who invented the telephone, and when?"))
print("".join(piece.content for piece in model.stream("Say hello.")))
"""


def test_langchain_calls_a_tool_and_reads_a_structured_answer(
    server: Server, tmp_path: Path
) -> None:
    programs = python_client("langchain-openai")
    program = server.connect("langchain") + MORE_OF_LANGCHAIN
    said = server.run(programs / "python", "-", cwd=tmp_path, stdin=program)
    first, call, person, hello = said.strip().split("\n", 3)
    assert "Paris" in first
    assert "'name': 'weather'" in call and "'city': 'Paris" in call
    assert person.startswith("name=") and "year=" in person
    assert hello


def test_aider_fixes_a_function(server: Server, tmp_path: Path) -> None:
    programs = python_client("aider-chat")
    server.connect("aider", "--write")
    (tmp_path / "calc.py").write_text(WRONG)
    quiet = [
        "--yes-always", "--no-git", "--no-check-update", "--no-analytics", "--no-gitignore",
        "--no-show-release-notes", "--no-pretty",
    ]  # fmt: skip
    config = server.home / ".aider.llmchat.yml"
    message = "The function add subtracts. Make it return the sum."
    ask = ["--config", config, *quiet, "--message", message, "calc.py"]
    server.run(programs / "aider", *ask, cwd=tmp_path)
    made: dict[str, Any] = {}
    exec((tmp_path / "calc.py").read_text(), made)
    assert made["add"](2, 3) == 5


# opencode's own instructions and tools are some 10,000 tokens: minutes on a CPU. An agent of its
# own takes the same path with fewer.
WRITER = {
    "autoupdate": False,
    "share": "disabled",
    "agent": {
        "title": {"disable": True},
        "writer": {
            "mode": "primary",
            "prompt": "You write files. Call the tool write once; then say that it is done.",
            "tools": {"*": False, "write": True},
            "temperature": 0,
            "steps": 2,
        },
    },
}


def test_opencode_writes_a_file(server: Server, tmp_path: Path) -> None:
    programs = npm_client("opencode-ai")
    server.connect("opencode", "--write")
    (tmp_path / "opencode.json").write_text(json.dumps(WRITER))
    ask = ["run", "--agent", "writer", "-m", f"llmchat/{server.file.name}", "--format", "json"]
    # A model of this size may copy the long path of the folder wrongly.
    for name in ("hello.py", "hello.py in this folder", str(tmp_path / "hello.py")):
        task = f'Write the file {name}: a Python program that prints "Hello, world".'
        said = server.run(programs / "opencode", *ask, task, cwd=tmp_path)
        assert '"tool":"write"' in said
        if (tmp_path / "hello.py").exists():
            break
    printed = server.run(sys.executable, tmp_path / "hello.py", cwd=tmp_path)
    assert "hello, world" in printed.lower()


def test_continue_answers(server: Server, tmp_path: Path) -> None:
    programs = npm_client("@continuedev/cli")
    server.connect("continue", "--write")
    config = server.home / ".continue/config.yaml"
    question = "What is the capital of France? Answer in one word."
    said = server.run(programs / "cn", "--config", config, "-p", question, cwd=tmp_path)
    assert "Paris" in said


# Client → its package of npm, the command that asks with all its instructions and tools, and the
# least characters of these.
AGENTS = {
    "opencode": ("opencode-ai", ["opencode", "run", "-m", "llmchat/m", "Say hello."], 20_000),
    "codex": (
        "@openai/codex",
        ["codex", "exec", "--profile", "llmchat", "--skip-git-repo-check", "Say hello."],
        20_000,
    ),
    "claude-code": (
        "@anthropic-ai/claude-code",
        ["claude", "--settings", "{home}/.claude/llmchat.json", "-p", "Say hello."],
        20_000,
    ),
    "qwen-code": (
        "@qwen-code/qwen-code",
        ["qwen", "--auth-type", "openai", "-m", "m", "Say hello."],
        20_000,
    ),
    "continue": (
        "@continuedev/cli",
        ["cn", "--config", "{home}/.continue/config.yaml", "-p", "Say hello."],
        4_000,
    ),
}


@pytest.mark.parametrize("client", AGENTS)
def test_all_that_a_coding_agent_sends_is_understood(client: str, tmp_path: Path) -> None:
    """Its whole instructions and tools, in minutes less than a model needs to read them."""
    package, command, least = AGENTS[client]
    programs = npm_client(package)
    preset = replace(CHATML, context=replace(CHATML.context, tokens=0))
    engine = ScriptedEngine(["Hello there."], context=200_000)
    spec = model_spec(lambda: engine, preset, context=200_000)
    with serving({"m": spec}, tmp_path) as run:
        user = Server(tmp_path, tmp_path, run.port)
        user.connect(client, "--write", "--force")
        words = [word.replace("{home}", str(tmp_path)) for word in command]
        (tmp_path / "project").mkdir()
        said = user.run(programs / words[0], *words[1:], cwd=tmp_path / "project")
        assert "Hello there." in said
    assert max(len(prompt.text) for prompt in engine.prompts) > least
