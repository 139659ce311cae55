"""`llmchat deploy vllm` on tiny checkpoints: output, files, errors, and a script as the server."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkpoints import (
    llama_pieces,
    save_adapter,
    save_tiny,
    sentencepiece_file,
    tiny_config,
    world_vocabulary,
)
from support.loopback_hub import Hub, Repo, serving
from transformers import MptConfig, T5Config

from llmchat.cli import main
from llmchat.conversation import Message
from llmchat.deploy.check import differing
from llmchat.deploy.facts import read_served_model
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.tokenizer.save import save_tokenizer
from llmchat.errors import Mismatch
from llmchat.presets import find, preset_for
from llmchat.settings import Options, World


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base, r=12)


@pytest.fixture(scope="module")
def dora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("dora"), base, use_dora=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "HOME": tmp_path,
        **{f"XDG_{kind}_HOME": tmp_path / kind for kind in ("CACHE", "CONFIG", "DATA", "STATE")},
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 0) -> tuple[str, str]:
    assert main(["deploy", "vllm", *map(str, arguments)]) == code
    return capsys.readouterr()


def test_the_command_and_its_files(
    base: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = ask(capsys, base, "-t", "vicuna", "--context", 100)
    folder = home / "base-vllm"
    assert out == (
        f"vllm serve {base} --host 127.0.0.1 --port 8000 --served-model-name base "
        f"--max-model-len 100 --tokenizer {folder}/tokenizer "
        f"--chat-template {folder}/chat_template.jinja --generation-config {folder} "
        """--override-generation-config '{"temperature": 0.7, "top_p": 1.0, "top_k": 0, """
        """"min_p": 0.0, "repetition_penalty": 1.0}'\n"""
    )
    assert err == (
        "note: send the stop strings with each request, as request.json does;"
        " the server stores none\n"
        f"files: {folder}\n"
    )
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": [2]}
    assert json.loads((folder / "request.json").read_text())["stop"] == ["USER:"]
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja",
        "generation_config.json",
        "request.json",
        "tokenizer",
    }


def test_the_checkpoints_own_template_is_served_as_it_is(
    base: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = ask(capsys, base, "-o", "out")
    assert (
        "<|im_start|>" in (home / "out/chat_template.jinja").read_text()
        and err == f"files: {home}/out\n"
    )


def test_stop_strings_that_are_tokens_are_ids(
    base: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, base, "-t", "chatml", "-o", "out")
    assert json.loads((home / "out/generation_config.json").read_text()) == {"eos_token_id": [2, 4]}
    assert "stop" not in json.loads((home / "out/request.json").read_text())


def test_an_adapter_stays_live_and_comes_along(
    base: Path, adapter: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = ask(
        capsys,
        base,
        "--adapter",
        adapter,
        "-t",
        "alpaca",
        "-o",
        "out",
        "--vllm-flags",
        "--enforce-eager --seed 1",
    )
    words = shlex.split(out)
    module = {"name": "base", "path": f"{home}/out/adapters/base", "base_model_name": "base"}
    options = ["--lora-modules", json.dumps(module), "--enforce-eager", "--seed", "1"]
    assert words[-6:] == ["1", *options]
    assert words[words.index("--max-lora-rank") + 1] == "16"
    assert (home / "out/adapters/base/adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_an_adapter_that_vllm_cannot_hold_is_merged_first(
    base: Path, dora: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = ask(capsys, base, "--adapter", dora, "-o", "out")
    merge, serve = out.splitlines()
    assert merge == f"llmchat merge {base} --adapter {dora} -o {home}/out/model"
    assert serve.startswith(f"vllm serve {home}/out/model ") and "--enable-lora" not in serve
    assert err.startswith("note: base: vLLM has no use_dora in an adapter; so it is merged first\n")
    _, err = ask(capsys, base, "--adapter", dora, "--lora", code=8)
    assert "vLLM has no use_dora in an adapter" in err and "--merged" in err


def test_several_hosts_are_a_cluster_of_ray(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = ask(capsys, base, "--hosts", 2, "--gpus", 2, "-q")
    head, start, others, join, then, serve = out.splitlines()
    assert (head, start) == ("# on the first host", "ray start --head --port=6379")
    assert (others, join) == (
        "# on each of the other 1, with its address",
        "ray start --address=FIRST_HOST:6379",
    )
    assert then.startswith("# on the first host")
    assert serve.endswith(
        "--tensor-parallel-size 2 --pipeline-parallel-size 2 --distributed-executor-backend ray"
    )


def test_notes_on_the_room_it_has(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = ask(capsys, base, "--gpus", 3, "--gpu-memory", 16, "--host", "0.0.0.0")
    assert (
        "a copy is 0.0 GB of weights and has room for" in err
        and "chats of 256 tokens at once" in err
    )
    assert "everybody who reaches 0.0.0.0 can use it: set VLLM_API_KEY" in err
    _, err = ask(capsys, base, "--hosts", 2, "--gpu-memory", 16)
    assert "it fits one host" in err
    _, err = ask(capsys, base, "--gpus", 3)
    assert "1 of the GPUs stay idle" in err
    _, err = ask(capsys, base, "--gpu-memory", 1, code=6)
    assert err.startswith(
        "error: weights and one chat of 256 tokens are 0 GB; these GPUs have room for 0 GB\n"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            T5Config(vocab_size=320, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16),
            "vLLM runs no encoder-decoders such as T5ForConditionalGeneration",
        ),
        (
            MptConfig(vocab_size=320, d_model=32, n_heads=2, n_layers=1, max_seq_len=64),
            "vLLM dropped MPT after 0.28",
        ),
    ],
    ids=["t5", "mpt"],
)  # fmt: skip
def test_what_vllm_does_not_run_is_refused(
    config: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", config)
    capsys.readouterr()
    _, err = ask(capsys, model, "-o", "out", code=8)
    assert err == (
        f"error: model cannot be served by vLLM: {reason}\n"
        "hint: `llmchat chat` and `llmchat serve` run it\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_family_that_vllm_lacks_is_refused_before_the_hub_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, err = ask(capsys, "raven-7b", code=8)
    assert err.startswith(
        "error: rwkv-raven-7b cannot be served by vLLM: vLLM has no recurrent RWKV models\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nonsense-7b"], 3, "error: no model is called `nonsense-7b`"),
        (["--dtype", "int3"], 2, "error: invalid dtype `int3`"),
        (["--vllm-flags", "'x"], 2, "error: --vllm-flags cannot be read: No closing quotation"),
        (["--run", "--vllm", "no-such-program"], 2, "error: `no-such-program` is not on the PATH"),
        (["--hosts", "2", "--compose", "c.yaml"], 2, "error: Docker Compose is for one host"),
        (["--gpus", "0", "--compose", "c.yaml"], 2, "error: the Docker Compose file is for GPUs"),
        (
            ["--gpus", "0", "--hosts", "2"],
            2,
            "error: without GPUs vLLM serves on the CPU of one host",
        ),
        (
            ["--ray", "r.yaml", "--vllm-flags", "--seed 1"],
            8,
            "error: --vllm-flags are for the `vllm` command, and a Ray Serve config has none",
        ),
    ],
)
def test_bad_input_is_one_line(
    base: Path, arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if arguments[0] == "nonsense-7b" else [str(base)]
    _, err = ask(capsys, *model, *arguments, "-q", code=code)
    assert err.splitlines()[0] == line


def test_compose(base: Path, adapter: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(
        capsys,
        base,
        "--adapter",
        adapter,
        "-t",
        "vicuna",
        "-o",
        "out",
        "--compose",
        "c.yaml",
        "--gpus",
        4,
        "--port",
        9000,
    )
    service = yaml.safe_load((home / "c.yaml").read_text())["services"]["vllm"]
    words = service["command"]
    assert (
        service["image"].startswith("vllm/vllm-openai:v")
        and service["entrypoint"] == ["vllm"]
        and words[:2] == ["serve", "/model"]
    )
    assert (
        service["volumes"][0] == f"{home}/out:/llmchat:ro"
        and service["volumes"][2] == f"{base}:/model:ro"
    )
    assert words[words.index("--chat-template") + 1] == "/llmchat/chat_template.jinja"
    assert json.loads(words[words.index("--lora-modules") + 1])["path"] == "/llmchat/adapters/base"
    assert (
        service["ports"] == ["127.0.0.1:9000:8000"] and words[words.index("--port") + 1] == "8000"
    )
    assert service["environment"]["VLLM_API_KEY"].startswith("${VLLM_API_KEY:?")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 4, "capabilities": ["gpu"]}
    assert "/health" in service["healthcheck"]["test"][-1]
    assert all(isinstance(word, str) for word in words)


def test_ray_serve(
    base: Path, adapter: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(
        capsys,
        base,
        "-t",
        "vicuna",
        "-o",
        "out",
        "--ray",
        "r.yaml",
        "--gpus",
        2,
        "--replicas",
        3,
        "--streams",
        16,
    )
    (application,) = yaml.safe_load((home / "r.yaml").read_text())["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (config,) = application["args"]["llm_configs"]
    assert config["model_loading_config"] == {"model_id": "base", "model_source": str(base)}
    assert config["engine_kwargs"]["tensor_parallel_size"] == 2
    assert (
        config["engine_kwargs"]["chat_template"] == (home / "out/chat_template.jinja").read_text()
    )
    assert config["deployment_config"]["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 16,
    }

    _, err = ask(capsys, base, "--adapter", adapter, "--ray", "r.yaml", "-q", code=8)
    assert "Ray Serve loads adapters from s3://" in err
    ask(
        capsys,
        base,
        "--adapter",
        adapter,
        "--ray",
        "r.yaml",
        "--store",
        "s3://bucket/adapters",
        "-o",
        "out",
    )
    text = (home / "r.yaml").read_text()
    assert "Ask for base:base (from s3://bucket/adapters/base)." in text
    (config,) = yaml.safe_load(text)["applications"][0]["args"]["llm_configs"]
    assert (
        config["lora_config"]["dynamic_lora_loading_path"] == "s3://bucket/adapters"
        and config["engine_kwargs"]["enable_lora"] is True
    )


def test_ray_listens_where_host_says_and_takes_no_gpu_without_one(
    base: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(*arguments: object) -> tuple[dict[str, Any], dict[str, Any], str]:
        _, err = ask(capsys, base, "-t", "vicuna", "-o", "out", "--ray", "r.yaml", *arguments)
        text = yaml.safe_load((home / "r.yaml").read_text())
        return text["http_options"], text["applications"][0]["args"]["llm_configs"][0], err

    options, config, err = written()
    assert (
        options == {"host": "127.0.0.1", "port": 8000}
        and "accelerator_config" not in config
        and "no key" not in err
    )
    options, config, err = written("--host", "0.0.0.0", "--port", 9000, "--gpus", 0)
    assert (
        options == {"host": "0.0.0.0", "port": 9000}
        and "Ray Serve asks for no key: everybody who reaches 0.0.0.0" in err
    )
    assert config["accelerator_config"] == {"kind": "cpu"}
    assert config["deployment_config"]["autoscaling_config"]["max_replicas"] == 1
    assert (
        written("--gpus", 0, "--replicas", 2)[1]["deployment_config"]["autoscaling_config"][
            "max_replicas"
        ]
        == 2
    )


@pytest.fixture
def foreign(base: Path, tmp_path: Path) -> Path:
    """A checkpoint that only code of its own can open."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    config |= {
        "model_type": "marvel",
        "auto_map": {"AutoConfig": "m.Config", "AutoModelForCausalLM": "m.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_of_a_checkpoint_runs_only_with_the_users_word(
    foreign: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--compose", "c.yaml", "--ray", "r.yaml")
    _, err = ask(capsys, foreign, "-o", "out", *files, "--run", "--vllm", "true", code=8)
    assert err.splitlines()[0].endswith(
        "foreign needs Python code of its own: transformers does not support `marvel`"
    )
    assert err.splitlines()[1].startswith("hint: --trust-remote-code runs the code of")
    assert not (home / "out").exists() and not (home / "c.yaml").exists()
    out, _ = ask(capsys, foreign, "-o", "out", *files, "--trust-remote-code")
    assert out.count("--trust-remote-code") == 1
    assert (
        "--trust-remote-code"
        in yaml.safe_load((home / "c.yaml").read_text())["services"]["vllm"]["command"]
    )
    (config,) = yaml.safe_load((home / "r.yaml").read_text())["applications"][0]["args"][
        "llm_configs"
    ]
    assert config["engine_kwargs"]["trust_remote_code"] is True
    out, _ = ask(capsys, foreign, "-o", "out", "--vllm-flags", "--trust-remote-code")
    assert out.count("--trust-remote-code") == 1, "the user's word in another place"


def test_code_that_the_engine_does_not_need_is_left_alone(
    foreign: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((foreign / "config.json").read_text()) | {"model_type": "llama"}
    (foreign / "config.json").write_text(json.dumps(config))
    out, _ = ask(capsys, foreign, "-o", "out", "--ray", "r.yaml", "--compose", "c.yaml")
    assert "trust" not in out + (home / "r.yaml").read_text() + (home / "c.yaml").read_text()


def test_run_becomes_the_server_after_the_merge(base: Path, adapter: Path, home: Path) -> None:
    program = home / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        f'#!{sys.executable}\nimport sys\nprint("served", *sys.argv[1:3])\nsys.exit(7)\n'
    )
    program.chmod(0o755)
    command = [sys.executable, "-m", "llmchat", "deploy", "vllm", str(base)]
    command += ["--adapter", str(adapter), "--merged", "-o", "out", "--run", "-q"]
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env)
    assert (done.returncode, done.stdout) == (7, f"served serve {home}/out/model\n"), done.stderr
    assert (home / "out/model/model.safetensors").exists()


def test_what_is_not_pulled_is_read_from_the_hub_without_its_weights(
    base: Path,
    adapter: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(
        Hub({"org/base": Repo.of_folder(base), "org/adapter": Repo.of_folder(adapter)})
    ) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(home / "hf"))
        out, _ = ask(
            capsys,
            "org/base",
            "--adapter",
            "org/adapter",
            "-t",
            "vicuna",
            "--gpu-memory",
            24,
            "-o",
            "out",
        )
        words = shlex.split(out)
        assert words[2] == "org/base" and words[words.index("--revision") + 1] == "a" * 40
        assert json.loads(words[-1]) == {
            "name": "org/base",
            "path": "org/adapter",
            "base_model_name": "org/base",
        }
        whole = [
            one for one in hub.downloads() if one.path.endswith(".safetensors") and not one.range
        ]
        assert whole == [] and hub.sent < (base / "model.safetensors").stat().st_size


def llama_folder(folder: Path) -> Path:
    """The LLaMA tokenizer of the first checkpoints: sentencepiece, no `legacy` in its config."""
    folder.mkdir()
    pieces = llama_pieces("▁A", "▁B", "be", "lo", "el", "▁Be", "▁Belo", "Be", "▁is", "is", "▁a")
    (folder / "tokenizer.model").write_bytes(sentencepiece_file(pieces))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"})
    )
    (folder / "config.json").write_text(
        tiny_config(architectures=["LlamaForCausalLM"]).to_json_string()
    )
    return folder


def test_a_server_reads_the_ids_that_llmchat_reads(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = llama_folder(tmp_path / "llama")
    _, err = ask(capsys, folder, "-t", "vicuna", "-o", "out")
    assert "read otherwise" not in err
    served = read_served_model(
        preset_for(Options(model=str(folder), format="vicuna")), world, tmp_path / "scratch"
    )
    assert served.bos == "<s>" and served.special >= {"<s>", "</s>"}
    assert differing(served, tmp_path / "out") == []
    # The same template without its opening token is found out at once.
    (tmp_path / "out/chat_template.jinja").write_text(
        (tmp_path / "out/chat_template.jinja").read_text().replace('{{- "<s>" -}}', "")
    )
    assert (
        len(differing(served, tmp_path / "out")) == 3
        and "token 0 is <s> for llmchat" in differing(served, tmp_path / "out")[0]
    )


def test_a_saved_tokenizer_gives_the_ids_of_the_original(tmp_path: Path) -> None:
    folder, form = llama_folder(tmp_path / "llama"), find("vicuna-7b").format
    save_tokenizer(folder, tmp_path / "saved")
    prompt = form.render(
        [Message("user", "Be a 日本 </s> "), Message("assistant", "is"), Message("user", "lo")]
    )
    assert Tokenizer(tmp_path / "saved").encode(prompt) == Tokenizer(folder).encode(prompt)
    world_model = tmp_path / "world"
    world_model.mkdir()
    (world_model / "rwkv_vocab_v20230424.txt").write_text(world_vocabulary())
    with pytest.raises(Mismatch, match="cannot be written as a tokenizer"):
        save_tokenizer(world_model, tmp_path / "other")
