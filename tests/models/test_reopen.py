"""A session opens its own model again, from any folder, and keeps what was set in it."""

import io
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.checkpoints import save_adapter, save_tiny
from support.openai_server import Asked, Told, json_of, said, serving, sse
from support.worlds import make_world

from llmchat.chat import Chat
from llmchat.cli import main
from llmchat.conversation import Message
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import BranchWriter, History, Session, migrations
from llmchat.models.opener import ModelOpener
from llmchat.presets import find, get_format, reopen_options, without_credentials
from llmchat.settings import Options, resolve

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in a home of its own: exit code, stdout, stderr."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def latest(tmp_path: Path) -> Session:
    with History(tmp_path / "data/llmchat/history.db") as history:
        found = history.latest()
    assert found
    return found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"model": "smollm2", "device": "cpu", "temperature": 1.0}, {"model": "smollm2"}),
        ({"model": "org/name", "weights": "bf16"}, {"model": "org/name", "weights": "bf16"}),
        ({"model": "./m"}, {"model": "{here}/m"}),
        ({"model": "m.gguf", "engine": "gguf"}, {"model": "{here}/m.gguf", "engine": "gguf"}),
        (
            {"model": "a", "adapter": "./l:0.5", "base": "b"},
            {"model": "{here}/a", "adapter": "{here}/l:0.5", "base": "{here}/b"},
        ),
        ({"model": "a", "adapter": "none"}, {"model": "{here}/a", "adapter": "none"}),
        ({"model": "a", "adapter": "org/l:2"}, {"model": "{here}/a", "adapter": "org/l:2"}),
        (
            {"model": "x", "url": "me:sk-key@host:8000?key=sk"},
            {"model": "x", "url": "http://host:8000"},
        ),
    ],
)
def test_paths_become_absolute_and_names_stay(
    given: dict[str, Any], kept: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "smollm2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    expected = {name: value.format(here=tmp_path) for name, value in kept.items()}
    assert reopen_options(Options(**given)) == expected


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://host/v1", "http://host/v1"),
        ("https://user:secret@host:1/v1", "https://host:1/v1"),
        ("localhost:8000", "http://localhost:8000"),
    ],
)
def test_an_address_is_kept_without_credentials(url: str, kept: str) -> None:
    assert without_credentials(url) == kept


def test_a_session_goes_before_environment_and_file_and_a_flag_before_it(tmp_path: Path) -> None:
    world = make_world(tmp_path, LLMCHAT_MODEL="other", LLMCHAT_ADAPTER="org/a", LLMCHAT_TOP_K="5")
    opens = {"model": "/m", "weights": "bf16"}
    options = resolve(world, {"weights": "fp32"}, opens).options
    assert (options.model, options.weights, options.adapter, options.top_k) == (
        "/m",
        "fp32",
        None,
        5,
    )
    options = resolve(world, {"model": "/other"}, opens).options
    assert (options.model, options.weights, options.adapter) == ("/other", None, "org/a")


def test_a_model_given_by_path_opens_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path / "here/base")
    save_adapter(tmp_path / "here/adapter", base)
    world = make_world(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    first = ModelOpener(
        world, {"model": "base", "adapter": "adapter", "weights": "fp32"}
    ).open_later()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    again = ModelOpener(world, {}, opens=first.opens).open_later()
    assert again.made_by == first.made_by and again.opens == first.opens
    assert again.preset.base.repo == str(base) and again.preset.weights == "fp32"
    bare = ModelOpener(world, {}, opens=first.opens).open(adapter="none", device="cpu")
    assert bare.opens["adapter"] == "none" and not bare.preset.adapters


def test_continue_opens_the_same_model_in_another_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("-m", "./models", "--engine", "scripted", "--weights", "bf16", "hello")[0] == 0
    opens = {"model": str(tmp_path / "models"), "engine": "scripted", "weights": "bf16"}
    assert latest(tmp_path).opens == opens
    monkeypatch.chdir("/")
    code, out, _ = run("-c", "again")
    assert code == 0 and "> again" in out and latest(tmp_path).opens == opens
    assert run("-c", "-m", "smollm2", "--engine", "scripted", "more")[0] == 0
    assert latest(tmp_path).opens == {"model": "smollm2", "engine": "scripted"}, (
        "the last model stays"
    )
    assert run("sessions", "replay", latest(tmp_path).id)[0] == 0


def test_continue_asks_the_same_server(run: Run, tmp_path: Path) -> None:
    def app(asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return json_of({"data": [{"id": "org/one", "owned_by": "vllm", "max_model_len": 2048}]})
        if "completions" in asked.path:
            return Told(sse(said("Paris."), said("", "stop")))
        return json_of({"tokens": [1] * 7})

    with serving(app) as (url, _):
        assert run("--url", url, "hello")[:2] == (0, "Paris.\n")
        assert latest(tmp_path).opens == {"model": "org/one", "url": f"{url}/v1"}
        assert run("-c", "again")[:2] == (0, "Paris.\n")


def test_settings_come_back_with_the_session(run: Run, tmp_path: Path) -> None:
    engine = ("--engine", "scripted")
    run(*engine, "hello")
    with History(tmp_path / "data/llmchat/history.db") as history:
        one = history.latest()
        assert one
        history.remember(
            one.id, one.model, one.opens, {"top_k": 7, "context": 1000, "gone": 1, "min_p": 9}
        )
    run("-c", "again")
    run("-c", "--top-k", "9", "and again")
    with History(tmp_path / "data/llmchat/history.db") as history:
        made = [r.details for r in history.messages(one.id) if r.message.role == "assistant"]
    assert [(m["sampling"].get("top_k"), m["context"].get("tokens")) for m in made[1:]] == [
        (7, 1000),
        (9, 1000),
    ]


def chat(history: History, **changes: Any) -> Chat:
    preset = replace(find("smollm2"), format=get_format("chatml"), engine="scripted")
    return Chat(preset, ScriptedEngine(["one"]), history, **changes)


def test_set_values_are_stored_whether_before_or_after_the_first_question() -> None:
    history = History(None)
    talk = chat(history, opens={"model": "smollm2"})
    talk.set({"top_k": "7"})
    list(talk.send("hello"))
    talk.set({"context": "512", "seed": 3})
    session = history.find(talk.session or "")
    assert session.settings == {"top_k": 7, "context": 512, "seed": 3} and session.opens == {
        "model": "smollm2"
    }
    talk.unset("seed")
    talk.unset("context")
    assert talk.sampling.seed is None and talk.preset.context.tokens == 8192
    assert history.find(session.id).settings == {"top_k": 7}
    assert history.find(talk.fork()).settings == {"top_k": 7}


def test_another_session_brings_its_own_settings() -> None:
    history = History(None)
    talk = chat(history)
    list(talk.send("plain"))
    plain = talk.session or ""
    talk.restart()
    talk.set({"top_k": 7})
    list(talk.send("set"))
    with_set = talk.session or ""
    talk.open(plain, history.find(plain).settings)
    assert talk.sampling.top_k == talk.defaults["top_k"] and history.find(with_set).settings == {
        "top_k": 7
    }
    talk.open(with_set, history.find(with_set).settings)
    assert talk.sampling.top_k == 7 and history.find(plain).settings == {}


def test_a_history_from_before_opens_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h/history.db"
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.executescript(str(migrations.STEPS[0]))
    database.execute(
        "INSERT INTO sessions(id, model, created, updated) VALUES ('old', 'smollm2', 1, 1)"
    )
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    with History(path) as history:
        BranchWriter(history, "old").append(Message("user", "hello"))
        session = history.find("old")
    assert (session.model, session.opens, session.settings) == ("smollm2", {}, {})


def test_a_session_whose_model_is_gone_says_how_to_continue(run: Run, tmp_path: Path) -> None:
    run("--engine", "scripted", "hello")
    gone = {"model": str(tmp_path / "gone")}
    with History(tmp_path / "data/llmchat/history.db") as history:
        one = history.latest()
        assert one
        history.remember(one.id, one.model, gone, {})
    code, _, err = run("-c", "again")
    assert code == 3 and err.endswith("hint: `-m MODEL` continues the session with another model\n")
    assert run("-c", "-m", "smollm2", "--engine", "scripted", "again")[0] == 0
