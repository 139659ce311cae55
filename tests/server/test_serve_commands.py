"""The server's commands: serve --background, one-shots over its socket, ps, stop, keys, signals."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.checkpoints import save_tiny

from llmchat.background.client import reachable

LLMCHAT = [sys.executable, "-m", "llmchat"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    return {"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def run(env: dict[str, str]) -> Run:
    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*LLMCHAT, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            timeout=120,
        )

    return run


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def served(run: Run, tiny: Path, port: int) -> Iterator[str]:
    """A server in the background that has the tiny model."""
    started = run(
        "serve", "--background", "-m", str(tiny), "--weights", "fp32", "--port", str(port)
    )
    assert started.returncode == 0 and "serving as process" in started.stderr, started
    yield f"http://127.0.0.1:{port}"
    assert run("serve", "--stop").returncode == 0


ASK = ("chat", "-n", "--json", "--temperature", "0", "--max-tokens", "6", "--weights", "fp32")


def test_a_one_shot_has_the_same_output_with_and_without_a_server(
    run: Run, served: str, tiny: Path
) -> None:
    warm, cold = (run(*ASK, "-m", str(tiny), *more, "the quick") for more in ((), ("--no-server",)))
    assert (warm.returncode, warm.stderr, cold.returncode) == (0, "", 0)
    one, other = json.loads(warm.stdout), json.loads(cold.stdout)
    assert one.pop("served") is True and "served" not in other
    for same in ("text", "model", "finish_reason", "window"):
        assert one[same] == other[same], same
    assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    assert (
        run(
            "chat",
            "-n",
            "-m",
            str(tiny),
            "--weights",
            "fp32",
            "--max-tokens",
            "3",
            stdin="the quick",
        ).returncode
        == 0
    )


def test_a_one_shot_with_a_server_loads_nothing_that_runs_models(
    served: str, tiny: Path, env: dict[str, str]
) -> None:
    """So that its first token comes at once; `benchmarks/serve.py` measures it."""
    arguments = [*ASK, "-m", str(tiny), "the quick"]
    code = (
        "import sys\nfrom llmchat.cli import main\n"
        f"code = main({arguments!r})\n"
        "heavy = ('torch', 'transformers', 'tokenizers', 'huggingface_hub', 'prompt_toolkit')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["served"] is True
    assert done.stderr.strip() == "[]"


def test_another_model_is_loaded_by_the_server(run: Run, served: str, tiny: Path) -> None:
    assert (
        json.loads(run(*ASK, "-m", str(tiny), "--weights", "bf16", "hi").stdout)["served"] is True
    )
    rows = json.loads(run("ps", "--json").stdout)
    assert sorted(row["name"].split()[1] for row in rows) == ["bf16", "fp32"]
    bf16 = next(row["name"] for row in rows if "bf16" in row["name"])
    assert run("stop", bf16).returncode == 0 and len(json.loads(run("ps", "--json").stdout)) == 1
    missing = run("stop", bf16)
    assert missing.returncode == 2 and missing.stderr.startswith(
        f"error: `{bf16}` is in use, or not in memory"
    )


def test_errors_are_the_same_with_and_without_a_server(run: Run, served: str, tiny: Path) -> None:
    assert run("chat", "-n", "-m", "alpaca-lora-7b", "hi").stderr.startswith(
        "error: `alpaca-lora-7b` is not pulled"
    )
    long = run("chat", "-n", "-m", str(tiny), "--weights", "fp32", "fox " * 900)
    assert long.returncode == 7 and long.stderr.startswith("error: the last message needs")


def test_only_its_user_can_open_the_socket(run: Run, served: str, env: dict[str, str]) -> None:
    (file,) = Path(env["HOME"]).rglob("serve.sock")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("serve", "--background", "--port", "0")
    assert again.returncode == 2 and again.stderr.startswith(
        "error: a background server is running already"
    )


def test_the_same_server_answers_http(served: str, tiny: Path) -> None:
    assert json.load(urllib.request.urlopen(f"{served}/v1/models"))["data"][0]["id"] == tiny.name


def test_commands_report_a_missing_server(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for arguments in (["ps"], ["stop"], ["serve", "--stop"]):
        done = subprocess.run(
            [*LLMCHAT, *arguments], capture_output=True, text=True, env=env, timeout=60
        )
        assert (
            done.returncode == 2
            and done.stderr
            == "error: no background server is running\n"
            "hint: `llmchat serve --background` starts one\n"
        )


def test_a_dead_socket_counts_as_no_server(tmp_path: Path, tiny: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    file = tmp_path / ".local/state/llmchat/serve.sock"
    file.parent.mkdir(parents=True)
    dead = socket.socket(socket.AF_UNIX)
    with reachable(file) as address:
        dead.bind(address)
    dead.close()
    done = subprocess.run(
        [*LLMCHAT, *ASK, "-m", str(tiny), "hi"], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 0 and "served" not in json.loads(done.stdout)


def test_keys_are_managed_by_command(tmp_path: Path) -> None:
    def keys(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [*LLMCHAT, "serve", "keys", *arguments, "--key-file", str(tmp_path / "k.json")]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={"HOME": str(tmp_path), "PATH": ""},
            timeout=60,
        )

    secret = keys("add", "ann").stdout.strip()
    assert secret.startswith("llmchat-") and [
        row["name"] for row in json.loads(keys("list", "--json").stdout)
    ] == ["ann"]
    assert (
        secret not in keys("list").stdout
        and keys("remove", "ann").returncode == 0
        and keys("list").stdout == ""
    )


def test_listening_on_other_addresses_requires_a_key(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*LLMCHAT, "serve", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "error: 0.0.0.0 is reachable from other machines, and there is no API key"
    )


def test_a_signal_finishes_running_answers(tmp_path: Path, tiny: Path, port: int) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    command = [*LLMCHAT, "serve", "-m", str(tiny), "--weights", "fp32", "--port", str(own)]
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    while "serving at" not in (line := server.stderr.readline()):
        assert line, "it ended before it served"
    body = json.dumps(
        {"model": str(tiny), "prompt": "the", "max_tokens": 200, "temperature": 0, "stream": True}
    ).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{own}/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as stream:
        first = stream.readline()
        server.send_signal(signal.SIGTERM)
        rest = stream.read()
    assert first.startswith(b"data: ") and rest.rstrip().endswith(b"data: [DONE]")
    assert server.wait(30) == 0 and not list(tmp_path.rglob("serve.sock"))
