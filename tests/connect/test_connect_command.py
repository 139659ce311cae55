"""`llmchat connect`: with a server that answers, without one, and with files of the user."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from support.serving import CHATML, Running, model_spec, serving
from support.worlds import make_world

from llmchat.cli import main
from llmchat.connect import client_names
from llmchat.engines.scripted import ScriptedEngine
from llmchat.presets import get_format
from llmchat.settings import World

PLAIN = replace(CHATML, context=replace(CHATML.context, tokens=0))
TOOLS = replace(PLAIN, format=replace(get_format("chatml"), template="{{ tools }}", parts={}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    def load() -> ScriptedEngine:
        return ScriptedEngine(["Yes."])

    specs = {
        "tiny": model_spec(load, PLAIN, context=8192),
        "coder": model_spec(load, TOOLS, key="coder", context=16384),
    }
    with serving(specs, tmp_path_factory.mktemp("server")) as running:
        yield running


def connect(world: World, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command in the home of a world."""
    fresh = make_world(Path(world.env["HOME"]))
    code = main(["connect", *arguments], replace(fresh, env=world.env))
    return code, fresh.stdout.getvalue(), fresh.stderr.getvalue()  # type: ignore[attr-defined]


def test_without_a_name_all_clients_are_listed(world: World) -> None:
    code, out, _ = connect(world)
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == client_names()


def test_settings_are_printed_on_stdout_and_nothing_is_written(world: World, run: Running) -> None:
    code, out, err = connect(world, "llm", "-m", "tiny", "--url", run.url)
    assert code == 0 and not (world.config.parent / ".config").exists()
    (entry,) = yaml.safe_load(out)
    assert entry["model_name"] == "tiny" and entry["api_base"] == f"{run.url}/v1"
    assert "extra-openai-models.yaml" in err and "then: llm -m llmchat/tiny" in err


def test_a_file_is_written_once_and_then_left_alone(world: World, run: Running) -> None:
    arguments = ("opencode", "-m", "coder", "--url", run.url, "--write")
    file = world.config.parent / ".config/opencode/opencode.json"
    assert connect(world, *arguments)[0] == 0
    before = file.read_text()
    assert json.loads(before)["provider"]["llmchat"]["models"]["coder"]["limit"] == {
        "context": 16384,
        "output": 4096,
    }
    code, _, err = connect(world, *arguments)
    assert code == 0 and "is up to date" in err
    assert file.read_text() == before and [one.name for one in file.parent.iterdir()] == [file.name]


def test_a_file_of_the_user_is_copied_and_keeps_what_else_it_says(
    world: World, run: Running
) -> None:
    file = world.config.parent / ".config/opencode/opencode.json"
    file.parent.mkdir(parents=True)
    own = '{"theme": "mine", "provider": {"other": {"name": "x"}}}'
    file.write_text(own)
    file.chmod(0o640)
    earlier = file.with_name("opencode.json.bak")
    earlier.write_text("an earlier copy")
    code, _, err = connect(world, "opencode", "-m", "coder", "--url", run.url, "--write")
    assert code == 0 and "opencode.json.bak2" in err
    changed = json.loads(file.read_text())
    assert changed["theme"] == "mine" and set(changed["provider"]) == {"other", "llmchat"}
    assert file.with_name("opencode.json.bak2").read_text() == own
    assert earlier.read_text() == "an earlier copy"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_with_comments_is_refused_and_unchanged(world: World, run: Running) -> None:
    file = world.config.parent / ".config/zed/settings.json"
    file.parent.mkdir(parents=True)
    file.write_text('// Zed\n{"theme": "mine"}\n')
    code, _, err = connect(world, "zed", "-m", "coder", "--url", run.url, "--write")
    assert code == 2 and "cannot be read as JSON" in err and "hint: " in err
    assert file.read_text() == '// Zed\n{"theme": "mine"}\n'
    assert len(list(file.parent.iterdir())) == 1


def test_nothing_is_written_if_one_of_the_files_cannot_be_changed(
    world: World, run: Running
) -> None:
    home = world.config.parent
    (home / ".aider.llmchat.json").write_text("[]")
    code, _, err = connect(world, "aider", "-m", "tiny", "--url", run.url, "--write")
    assert code == 2 and "is not a table" in err
    assert not (home / ".aider.llmchat.yml").exists()


def test_a_client_without_a_file_cannot_be_written(world: World, run: Running) -> None:
    code, _, err = connect(world, "langchain", "-m", "tiny", "--url", run.url, "--write")
    assert code == 2 and "langchain has no configuration file" in err


def test_a_model_that_is_not_enough_is_refused_unless_forced(world: World, run: Running) -> None:
    code, out, err = connect(world, "opencode", "-m", "tiny", "--url", run.url)
    assert (code, out) == (8, "")
    assert "opencode requires a window of 16,384 tokens; tiny has 8,192" in err
    code, out, err = connect(world, "opencode", "-m", "tiny", "--url", run.url, "--force")
    assert code == 0 and json.loads(out) and "note: opencode requires a window of 16,384" in err


def test_a_server_with_several_models_asks_for_one(world: World, run: Running) -> None:
    code, _, err = connect(world, "llm", "--url", run.url)
    assert code == 2 and "serves tiny, coder" in err
    code, _, err = connect(world, "llm", "--url", run.url, "-m", "codr")
    assert code == 3 and "did you mean `coder`?" in err


def test_json_of_a_client_has_its_files_and_notes(world: World, run: Running) -> None:
    code, out, _ = connect(world, "aider", "-m", "coder", "--url", run.url, "--json")
    found = json.loads(out)
    assert code == 0 and found["running"] and found["window"] == 16384
    assert [file["kind"] for file in found["files"]] == ["yaml", "json"]
    assert found["run"] == "aider --config ~/.aider.llmchat.yml"


def test_without_a_server_the_model_of_this_machine_decides(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    scripted = replace(world, env={**world.env, "LLMCHAT_ENGINE": "scripted"})
    code, out, err = connect(scripted, "continue", "-m", "smollm2", "--url", url, "--force")
    assert code == 0, err
    (model,) = yaml.safe_load(out)["models"]
    assert model["model"] == "smollm2"
    assert model["defaultCompletionOptions"] == {"contextLength": 8192, "maxTokens": 2048}
    assert f"no server answers at {url}/v1" in err
    assert f"`llmchat serve -m smollm2 --port {port}`" in " ".join(err.split())


def test_without_a_server_a_model_that_is_not_pulled_is_named(world: World) -> None:
    code, _, err = connect(world, "llm", "-m", "smollm2", "--url", "http://127.0.0.1:9")
    assert code == 3 and "llmchat pull smollm2" in err


def test_a_key_is_sent_and_written_into_a_file_of_its_owner_alone(
    world: World, tmp_path: Path
) -> None:
    from llmchat.server.keys import Keys

    specs = {"tiny": model_spec(lambda: ScriptedEngine(["Yes."]), context=8192)}
    keys = tmp_path / "keys.json"
    key = Keys(keys, world.now).add("me")
    with serving(specs, tmp_path / "server", key_file=keys) as run:
        code, _, err = connect(world, "llm", "--url", run.url)
        assert code == 4 and "requires a key" in err and "LLMCHAT_API_KEY" in err
        known = replace(world, env={**world.env, "LLMCHAT_API_KEY": key})
        assert connect(known, "continue", "--url", run.url, "--write", "--force")[0] == 0
    file = world.config.parent / ".continue/config.yaml"
    assert yaml.safe_load(file.read_text())["models"][0]["apiKey"] == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
