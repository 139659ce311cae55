"""Fuzz a Hub's answers: a pull succeeds, or ends in one line that names the server,
after no more requests than usual."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support import hub_attacks
from support.checkpoints import save_adapter, save_tiny
from support.loopback_hub import Hub, Repo, etag_of, serving
from support.worlds import make_world

from llmchat.errors import LlmchatError
from llmchat.models import pulling
from llmchat.output.progress import NoProgress
from llmchat.presets import Source, find

# Of a plan that succeeds. Whatever a server answers, it is asked no more often.
_MOST_REQUESTS = 8
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e300, 2**63, 2**200, "", "x" * 1000, "\x1b]52;c;eA==\a", "\u0000",
    "\ud800", [], ["a"], [None], {}, {"a": 1}, "../../x", "0" * 40, "0" * 64, 0.5, "é𝔘‮", [[[[[]]]]],
)  # fmt: skip


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    base = save_tiny(tmp_path_factory.mktemp("base"))
    adapter = save_adapter(tmp_path_factory.mktemp("adapter"), base)
    return {"org/base": Repo.of_folder(base, licence="mit"), "org/adapter": Repo.of_folder(adapter)}


@pytest.fixture
def hub(repos: dict[str, Repo], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("llmchat.hub.retry.WAITS", ())
    copies = {name: Repo(dict(repo.files), licence=repo.licence) for name, repo in repos.items()}
    with serving(Hub(copies)) as hub:
        yield hub


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with one place of it replaced, left out, or repeated."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: mutated(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [
            *value[:place],
            mutated(value[place], chance),
            *value[place + chance.randrange(2) :],
        ]
    return chance.choice(_VALUES)


def mutated_twice(content: bytes, chance: random.Random) -> bytes:
    return text(mutated(mutated(json.loads(content), chance), chance))


def torn(content: bytes, chance: random.Random) -> bytes:
    """The bytes cut off, with some of them changed, or other bytes in their place."""
    if chance.random() < 0.3:
        return content[: chance.randrange(len(content))]
    if chance.random() < 0.2:
        return chance.choice(
            [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff" * 50, b"1" * 5000, hub_attacks.PAGE]
        )
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 8)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused_or_done(tmp_path: Path, hub: Hub) -> str:
    """What a dry run of the pull ends with; the line of a refusal, which is one and short."""
    world = make_world(tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
    preset = replace(find("org/base"), adapters=(Source("hub", "org/adapter"),))
    try:
        pulling.plan_pull(preset, world)
        line = ""
    except LlmchatError as error:
        line = f"{error.message} | {error.hint}"
        assert (
            error.exit_code in (3, 5, 8, 9) and line.isprintable() and len(error.message) < 300
        ), line
    assert len(hub.requests) <= _MOST_REQUESTS
    return line


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_list(seed: int, hub: Hub, tmp_path: Path) -> None:
    chance = random.Random(seed)
    siblings = [
        {"rfilename": name, "size": len(content), "blobId": etag_of("", content)}
        for name, content in hub.repos["org/base"].files.items()
    ]
    info = {"sha": "a" * 40, "gated": False, "cardData": {"license": "mit"}, "siblings": siblings}
    hub.attacks["models/org/base"] = hub_attacks.says(
        torn(text(info), chance) if chance.random() < 0.3 else mutated(info, chance)
    )
    refused_or_done(tmp_path, hub)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
@pytest.mark.parametrize("seed", range(30))
def test_a_mutated_config(name: str, seed: int, hub: Hub, tmp_path: Path) -> None:
    chance = random.Random(seed)
    files = hub.repos["org/base" if name == "config.json" else "org/adapter"].files
    files[name] = (
        torn(files[name], chance) if chance.random() < 0.3 else mutated_twice(files[name], chance)
    )
    refused_or_done(tmp_path, hub)


@pytest.mark.parametrize("seed", range(30))
def test_a_mutated_header_of_tensors(seed: int, hub: Hub, tmp_path: Path) -> None:
    chance = random.Random(seed)
    files = hub.repos["org/base"].files
    content = files["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length]
    header = torn(header, chance) if chance.random() < 0.4 else mutated_twice(header, chance)
    files["model.safetensors"] = len(header).to_bytes(8, "little") + header + content[8 + length :]
    refused_or_done(tmp_path, hub)


@pytest.mark.parametrize("seed", range(30))
def test_any_answer_at_all(seed: int, hub: Hub, tmp_path: Path) -> None:
    """Bytes that are HTTP, or nearly."""
    chance = random.Random(seed)
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
        + text({"sha": "a" * 40, "siblings": []})
    )
    shapes = [
        torn(answer, chance),
        answer.replace(b"200", str(chance.randrange(100, 600)).encode()),
        answer.replace(b"Content-Length: 60", b"Location: \xff"),
    ]
    sent = chance.choice(shapes)

    def attack(handler: Any) -> None:
        handler.wfile.write(sent)
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.close()

    hub.attacks["/api/" if chance.random() < 0.6 else "/resolve/"] = attack
    refused_or_done(tmp_path, hub)


def test_the_pull_as_it_is_succeeds(hub: Hub, tmp_path: Path) -> None:
    """The fuzz begins from something that is right."""
    assert refused_or_done(tmp_path, hub) == ""
    world = make_world(tmp_path / "home", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
    assert (
        pulling.pull(pulling.plan_pull(find("org/base"), world), world, NoProgress())[0].downloaded
        > 0
    )
