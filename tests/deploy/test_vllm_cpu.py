"""Run vLLM with the command that `llmchat deploy vllm` prints, with and without an adapter.

It must read the same token ids and give the same greedy text as llmchat. Slow; requires vLLM:
LLMCHAT_VLLM names its program, for example that of the CPU build in a separate environment.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save_adapter

from llmchat.conversation import Message
from llmchat.deploy import Deployment, Hardware, plan
from llmchat.engines import Chunk, Sampling
from llmchat.engines.tokenizer import Tokenizer
from llmchat.models.loading import load
from llmchat.models.locate import locate
from llmchat.presets import Preset, preset_for
from llmchat.settings import Options, World

PROGRAM = os.environ.get("LLMCHAT_VLLM", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not PROGRAM, reason="LLMCHAT_VLLM names no vLLM; it is installed apart (docs/scaling.md)"
    ),
]

TALKS = {
    "one question": [Message("user", "What is the capital of France?")],
    "a system text, and labels in messages": [
        Message("system", "Answer in one word."),
        Message("user", "Say USER: x hi"),
        Message("assistant", " Hi \n"),
        Message("user", "日本?"),
    ],
    "material": [
        Message("user", "Summarise."),
        Message("assistant", "Of what?"),
        Message("user", "This.", "A text about cats."),
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def smol(smol_home: Path, place: Path) -> World:
    from support.worlds import make_world

    world = make_world(place)
    (place / "cache").symlink_to(smol_home / "cache")
    return world


@pytest.fixture(scope="module")
def preset(smol: World, place: Path) -> Preset:
    base = locate(preset_for(Options()), smol).base
    assert base
    adapter = save_adapter(
        place / "adapter",
        base.path,
        std=0.03,
        r=12,
        lora_alpha=24,
        target_modules=["q_proj", "v_proj", "down_proj"],
    )
    return preset_for(
        Options(format="vicuna", adapter=str(adapter), context=512, weights="fp32", temperature=0)
    )


@pytest.fixture(scope="module")
def served(preset: Preset, smol: World, place: Path) -> Iterator[Deployment]:
    """A running server; it is ready when it says so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--enforce-eager", "--max-num-seqs", "4", "--max-num-batched-tokens", "512"]
    ready = plan(
        [preset], smol, Hardware(), place / "served", dtype="float32", port=port, flags=flags
    )
    assert ready.notes == (
        "send the stop strings with each request, as request.json does; the server stores none",
    )
    env = {
        **os.environ,
        "HOME": str(place),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    env["PATH"] = f"{Path(PROGRAM).parent}:{env['PATH']}"
    server = subprocess.Popen(
        ready.command(PROGRAM),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
    )
    said = []
    try:
        assert server.stdout
        for line in server.stdout:
            said.append(line)
            if "Application startup complete" in line:
                break
        else:
            pytest.fail("vLLM did not start: " + "".join(said[-20:]))
        # What it says from now on is thrown away, so that it never waits for a reader.
        subprocess.Popen(
            [sys.executable, "-c", "import sys\nfor line in sys.stdin: pass"], stdin=server.stdout
        )
        yield ready
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def post(served: Deployment, path: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.request.port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def body(messages: list[Message]) -> dict[str, Any]:
    asked = {"messages": [{"role": message.role, "content": message.text} for message in messages]}
    material = [message.input for message in messages if message.role == "user"]
    return asked | ({"chat_template_kwargs": {"inputs": material}} if any(material) else {})


@pytest.mark.parametrize("talk", TALKS)
def test_it_reads_our_token_ids(served: Deployment, preset: Preset, talk: str) -> None:
    served = served.subjects[0]
    wanted = Tokenizer(served.base.folder).encode(served.format.render(TALKS[talk]))
    assert post(served, "/tokenize", model=preset.name, **body(TALKS[talk]))["tokens"] == wanted


@pytest.mark.parametrize("with_adapter", [True, False], ids=["adapter", "base"])
def test_it_gives_our_greedy_text(
    served: Deployment, preset: Preset, smol: World, with_adapter: bool
) -> None:
    from msgspec.structs import replace

    messages = TALKS["one question"]
    ours = preset if with_adapter else replace(preset, adapters=())
    engine = load(locate(ours, smol), Options(device="cpu"))
    prompt = preset.format.render(messages)
    text = "".join(
        part.text
        for part in engine.stream(prompt, Sampling(temperature=0, max_tokens=12))
        if isinstance(part, Chunk)
    )
    engine.unload()
    name = preset.name if with_adapter else served.subjects[0].base.title
    answer = post(
        served,
        "/v1/chat/completions",
        model=name,
        max_tokens=12,
        stop=list(prompt.stops),
        **body(messages),
    )
    assert answer["usage"]["prompt_tokens"] == len(
        Tokenizer(served.subjects[0].base.folder).encode(prompt)
    )
    assert answer["choices"][0]["message"]["content"].strip() == text.strip() != ""


def test_the_adapter_is_put_on(served: Deployment, preset: Preset) -> None:
    def said(name: str) -> str:
        answer = post(
            served,
            "/v1/chat/completions",
            model=name,
            max_tokens=24,
            **body([Message("user", "Tell me a story about a fox.")]),
        )
        return str(answer["choices"][0]["message"]["content"])

    assert said(preset.name) != said(served.subjects[0].base.title)


def test_what_our_renderer_refuses_is_a_bad_request(served: Deployment, preset: Preset) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        post(
            served,
            "/v1/chat/completions",
            model=preset.name,
            messages=[{"role": "assistant", "content": "x"}],
        )
    assert error.value.code == 400 and b"take turns" in error.value.read()
