"""Run Ray Serve with the config of `llmchat deploy vllm --gpus 0 --ray`.

It must listen on --host only, and give the same greedy text as llmchat. Slow; requires Ray and
vLLM's CPU build: LLMCHAT_RAY names the folder of their programs (docs/scaling.md).
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmchat.conversation import Message
from llmchat.deploy import Hardware, plan
from llmchat.engines import Chunk, Sampling
from llmchat.models.loading import load
from llmchat.models.locate import locate
from llmchat.presets import Preset, preset_for
from llmchat.settings import Options, World

PROGRAMS = os.environ.get("LLMCHAT_RAY", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not PROGRAMS, reason="LLMCHAT_RAY names no Ray; it is installed apart (docs/scaling.md)"
    ),
]
# Within the time limit of the test.
START_S = 400
QUESTIONS = ("What is the capital of France?", "Write two sentences about foxes.")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def preset() -> Preset:
    return preset_for(Options(context=512, weights="fp32", temperature=0))


@pytest.fixture(scope="module")
def port(
    preset: Preset, smol_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Where a cluster of this machine serves the default model."""
    from support.worlds import make_world

    place, port = tmp_path_factory.mktemp("ray"), free_port()
    (place / "cache").symlink_to(smol_home / "cache")
    ready = plan(
        [preset], make_world(place), Hardware(gpus=0), place / "served", dtype="float32", port=port
    )
    (place / "serve.yaml").write_text(ready.ray(1, 4, ""), "utf-8")
    env = {
        **os.environ,
        "HOME": str(place),
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    env |= {"VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    # A replica, its engine and the ingress reserve a CPU each; the machine may have fewer.
    start = [
        "ray",
        "start",
        "--head",
        "--num-cpus=4",
        f"--port={free_port()}",
        "--include-dashboard=false",
    ]
    try:
        subprocess.run(start, env=env, check=True, capture_output=True, timeout=120)
        with running(place, env) as serve:
            wait_for(port, serve)
            yield port
    finally:
        subprocess.run(["ray", "stop", "--force"], env=env, capture_output=True, timeout=120)


@contextlib.contextmanager
def running(place: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`serve run` with the config in `place`, until the block ends."""
    command = ["serve", "run", "serve.yaml"]
    with (place / "log").open("w") as log:
        serve = subprocess.Popen(
            command, cwd=place, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield serve
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serve.pid, signal.SIGTERM)
        serve.wait(60)


def wait_for(port: int, serve: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and serve.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30)
            return
        except OSError:
            time.sleep(1)
    pytest.fail("Ray Serve did not start")


def test_it_gives_our_greedy_text(port: int, preset: Preset, smol_world: World) -> None:
    model = locate(preset, smol_world)
    engine = load(model, Options(device="cpu"))
    for question in QUESTIONS:
        prompt = model.preset.format.render([Message("user", question)])
        text = "".join(
            part.text
            for part in engine.stream(prompt, Sampling(temperature=0, max_tokens=16))
            if isinstance(part, Chunk)
        )
        body = {
            "model": preset.name,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 16,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        assert answer["choices"][0]["message"]["content"].strip() == text.strip() != ""


def test_it_listens_on_this_machine_alone(port: int) -> None:
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    assert [
        row[1].rpartition(":")[0]
        for row in rows
        if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
    ] == ["0100007F"]
