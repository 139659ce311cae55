"""Models of other programs: which server, which of its models, which format, which notes."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save_tiny
from support.openai_server import App, Asked, Told, json_of, said, serving, sse
from support.worlds import make_world

from llmchat.cli import main
from llmchat.errors import LlmchatError, Mismatch, ModelNotFound, NetworkError, UsageError
from llmchat.models.loading import load
from llmchat.models.locate import locate, provenance
from llmchat.models.opener import ModelOpener, preset_of
from llmchat.presets import preset_for
from llmchat.prompt import Prompt
from llmchat.settings import Options, World, resolve


def server(*names: str, owner: str = "vllm", text: str = "Paris.") -> App:
    def app(asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return json_of(
                {"data": [{"id": name, "owned_by": owner, "max_model_len": 2048} for name in names]}
            )
        if "completions" in asked.path:
            return Told(sse(said(text), said("", "stop")))
        return json_of({"tokens": [1] * 7}) if asked.path == "/tokenize" else json_of({}, 404)

    return app


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command as a user types it, in a home of its own: exit code, stdout, stderr."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "LLMCHAT_URL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    def run(*arguments: str, **env: str) -> tuple[int, str, str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_an_address_alone_is_enough(run: Run) -> None:
    with serving(server("org/model")) as (url, asked):
        code, out, err = run(
            "chat", "--url", url, "What is the capital of France?", OPENAI_API_KEY="sk-secret"
        )
        assert (code, out, err) == (0, "Paris.\n", "")
        sent = asked[-1]
        assert (
            sent.path == "/v1/chat/completions"
            and sent.headers["Authorization"] == "Bearer sk-secret"
        )
        assert sent.body["model"] == "org/model"
        assert sent.body["messages"] == [
            {"role": "user", "content": "What is the capital of France?"}
        ]
        code, out, _ = run("chat", "-c", "--url", url, "And of Spain?", "--json")
        assert json.loads(out)["model"] == "org/model" and len(asked[-1].body["messages"]) == 3


def test_the_address_may_come_from_the_environment(run: Run) -> None:
    with serving(server("m")) as (url, _):
        assert run("chat", "hi", LLMCHAT_URL=url)[:2] == (0, "Paris.\n")
    with serving(server("m")) as (url, _):
        assert run("chat", "--engine", "openai", "hi", LLMCHAT_URL="", OPENAI_BASE_URL=url)[:2] == (
            0,
            "Paris.\n",
        )


def test_without_an_address_it_says_how_to_give_one(run: Run) -> None:
    code, out, err = run("chat", "--engine", "openai", "hi")
    assert (code, out) == (2, "") and err == (
        "error: the engine `openai` needs a server\n"
        "hint: --url http://localhost:8000/v1, LLMCHAT_URL or OPENAI_BASE_URL names it\n"
    )


def test_the_key_is_shown_nowhere(run: Run) -> None:
    key = "sk-super-secret-42"
    wrong = json_of({"error": {"message": f"Incorrect API key provided: {key}"}}, 401)
    with serving(lambda asked: wrong) as (url, _):
        code, out, err = run("chat", "--url", url, "hi", OPENAI_API_KEY=key)
    assert code == 4 and key not in out + err and "OPENAI_API_KEY" not in out
    assert key not in "".join(run("config", "show", "--origin")[1:])


def test_a_model_of_the_server_is_named_as_it_calls_it(run: Run) -> None:
    with serving(server("llama3.2:latest", "/m/x.gguf", "org/model", owner="library")) as (
        url,
        asked,
    ):
        for name, served in (
            ("llama3.2", "llama3.2:latest"),
            ("/m/x.gguf", "/m/x.gguf"),
            ("org/model", "org/model"),
        ):
            assert run("chat", "--url", url, "-m", name, "hi")[:2] == (0, "Paris.\n")
            assert asked[-1].body["model"] == served
        code, _, err = run("chat", "--url", url, "-m", "nothing", "hi")
        assert code == 3 and "it serves llama3.2:latest, /m/x.gguf, org/model" in err
        code, _, err = run("chat", "--url", url, "-m", "org/nothing", "hi")
        assert code == 3 and "has no model `org/nothing`" in err
        code, _, err = run("chat", "--url", url, "hi")
        assert code == 2 and "hint: --model names one of them" in err


def test_a_preset_is_sent_in_its_own_words(run: Run) -> None:
    with serving(server("tloen/alpaca-lora-7b", "other")) as (url, asked):
        code, out, _ = run("chat", "--url", url, "-m", "alpaca-lora-7b", "Name a fox.")
    assert (code, out) == (0, "Paris.\n") and asked[-1].path == "/v1/completions"
    body = asked[-1].body
    assert (
        body["model"] == "tloen/alpaca-lora-7b"
        and "### Instruction:\nName a fox." in body["prompt"]
        and "messages" not in body
    )


def test_any_model_can_be_sent_one_of_our_formats(run: Run) -> None:
    with serving(server("m")) as (url, asked):
        assert run("chat", "--url", url, "--format", "vicuna", "hi")[0] == 0
    assert asked[-1].path == "/v1/completions" and asked[-1].body["prompt"].endswith("ASSISTANT:")


def test_a_preset_that_the_server_does_not_name_is_taken_with_a_note(run: Run) -> None:
    with serving(server("served-by-me")) as (url, asked):
        code, out, err = run("chat", "--url", url, "-m", "koala-13b", "hi")
        assert (code, out) == (
            0,
            "Paris.\n",
        ) and f"note: {url[7:]} does not confirm that served-by-me is koala-13b" in err
        assert asked[-1].body["model"] == "served-by-me"


def test_an_adapter_is_looked_for_by_its_name_and_never_left_out(run: Run) -> None:
    with serving(server("base", "my-lora", "base+other")) as (url, asked):
        for adapter, served in (("org/my-lora", "my-lora"), ("org/other", "base+other")):
            assert run("chat", "--url", url, "-m", "base", "--adapter", adapter, "hi")[0] == 0
            assert asked[-1].body["model"] == served
        code, _, err = run("chat", "--url", url, "-m", "base", "--adapter", "org/third", "hi")
        assert code == 3 and "has no model `base+third`" in err
        code, _, err = run("chat", "--url", url, "-m", "base", "--adapter", "org/my-lora:0.5", "hi")
        assert code == 8 and "at full strength" in err
    with serving(server("alpaca-lora-7b", "huggyllama/llama-7b")) as (url, asked):
        assert (
            run("chat", "--url", url, "-m", "alpaca-lora-7b", "hi")[0] == 0
            and asked[-1].body["model"] == "alpaca-lora-7b"
        )
        assert run("chat", "--url", url, "-m", "alpaca-lora-7b", "--adapter", "none", "hi")[0] == 0
        assert asked[-1].body["model"] == "huggyllama/llama-7b"
    with serving(server("base")) as (url, asked):
        assert run("chat", "--url", url, "-m", "base", "--adapter", "org/my-lora", "hi")[0] == 3, (
            "not even where there is only one model"
        )


def test_what_decides_nothing_is_said(run: Run) -> None:
    with serving(server("m")) as (url, _):
        code, _, err = run("chat", "--url", url, "--weights", "int4", "--device", "cpu", "hi")
    assert code == 0 and err == "note: the engine `openai` ignores --weights and --device\n"


def test_settings_that_a_server_does_not_know_are_told(run: Run) -> None:
    with serving(server("m", owner="library")) as (url, asked):
        code, _, err = run("chat", "--url", url, "--top-k", "40", "--min-p", "0.1", "hi")
        assert code == 0 and err == "note: Ollama does not support top_k or min_p; not sent\n"
        assert "top_k" not in asked[-1].body and "min_p" not in asked[-1].body


def test_ollama_is_sent_no_text(run: Run) -> None:
    with serving(server("m", owner="library")) as (url, asked):
        code, _, err = run("chat", "--url", url, "--format", "alpaca", "hi")
        assert (
            code == 8 and "Ollama applies its own template to every text" in err and len(asked) == 1
        )


def test_offline_only_this_machine_is_asked(run: Run) -> None:
    code, _, err = run("chat", "--offline", "--url", "http://far.example/v1", "hi")
    assert code == 5 and "offline mode is on, and far.example is another machine" in err
    with serving(server("m")) as (url, _):
        assert run("chat", "--offline", "--url", url, "hi")[0] == 0


def test_a_preset_of_ones_own_may_name_a_server(run: Run, tmp_path: Path) -> None:
    with serving(server("big-model", "other")) as (url, asked):
        folder = tmp_path / "config" / "llmchat" / "presets"
        folder.mkdir(parents=True)
        (folder / "box.toml").write_text(
            f'engine = "openai"\nurl = "{url}"\nsystem = "Be brief."\n'
            '[base]\nkind = "served"\nrepo = "big-model"\n[sampling]\ntemperature = 0\n'
        )
        assert run("chat", "-m", "box", "hi")[:2] == (0, "Paris.\n")
    assert asked[-1].body["model"] == "big-model" and asked[-1].body["temperature"] == 0
    assert asked[-1].body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_tokenizer_that_is_here_counts(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "tiny")
    with serving(server(str(base), owner="")) as (url, _):
        world = make_world(tmp_path)
        model = locate(preset_for(Options(model=str(base), engine="openai", url=url)), world)
        engine = load(model, Options())
        assert "estimated" not in engine.describe() and model.preset.format.template is not None
        assert engine.count("the fox") == len(engine.encode(Prompt("the fox", (), bos=False)))
        made_by = provenance(model)
        assert (made_by["engine"], made_by["base"], made_by["weights"]) == (
            "openai",
            f"{base} at {url[7:]}",
            "",
        )


def test_another_model_of_the_same_server_takes_over(world: World) -> None:
    with serving(server("one", "two")) as (url, _):
        opener = ModelOpener(world, {"url": url, "model": "one"})
        assert opener.open().preset.name == "one"
        assert opener.open(model="two").preset.name == "two"
        with pytest.raises(ModelNotFound):
            opener.open(model="three")


@pytest.mark.parametrize(
    ("flags", "model", "origin"),
    [
        ({}, "smollm2", "default"),
        ({"url": "http://x"}, "", "default"),
        ({"engine": "openai"}, "", "default"),
        ({"engine": "gguf"}, "smollm2", "default"),
        ({"url": "http://x", "model": "smollm2"}, "smollm2", "flag"),
    ],
)
def test_without_a_name_the_only_model_of_a_server_is_meant(
    flags: dict[str, Any], model: str, origin: str, world: World
) -> None:
    settings = resolve(world, flags)
    assert (settings.options.model, settings.origins["model"]) == (model, origin)


def test_an_address_chooses_the_engine_and_a_flag_goes_before_it(world: World) -> None:
    assert preset_of(world, url="http://x", model="nobody knows it").engine == "openai"
    assert (
        preset_of(world, url="http://x", model="smollm2", engine="transformers").engine
        == "transformers"
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"engine": "gpt"}, UsageError),
        ({"engine": "openai", "url": "localhost:1"}, NetworkError),
        ({"engine": "gguf"}, Mismatch),
    ],
)
def test_engines_that_cannot_be_used_say_why(
    options: dict[str, Any], kind: type[LlmchatError], world: World
) -> None:
    with pytest.raises(kind):
        locate(preset_for(Options(**options)), world)
