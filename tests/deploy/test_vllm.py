"""What is told to vLLM: the rules of its adapters, the models it has, the command."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llmchat.deploy import vllm
from llmchat.deploy.facts import DeployedCheckpoint, ServedModel
from llmchat.deploy.sizing import Layout
from llmchat.deploy.vllm import Request
from llmchat.errors import Mismatch
from llmchat.presets import find, names

PLAIN = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 16,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "init_lora_weights": True,
}
FOLDER = Path("/served")


def served(name: str, *adapters: dict[str, Any], **config: Any) -> ServedModel:
    """A preset as it is known before a byte of it is here."""
    preset = find(name)
    base = DeployedCheckpoint(
        Path(preset.base.repo).name, preset.base.repo, "", False, False, Path("/none"), config
    )
    parts = tuple(
        DeployedCheckpoint("adapter", "org/adapter", "", False, False, Path("/none"), one)
        for one in adapters
    )
    return ServedModel(
        preset,
        base,
        parts,
        preset.format,
        (2,),
        "<s>",
        frozenset({"</s>"}),
        preset.context.tokens,
        preset.parameters,
    )


@pytest.mark.parametrize("name", sorted(names(kind="chat")))
def test_every_preset_has_a_command_or_a_reason(name: str) -> None:
    one = served(name)
    family = one.preset.architecture.lower()
    try:
        vllm.check_served(name, one.architecture, {})
    except Mismatch as error:
        assert family.startswith(("rwkv", "t5", "mpt")) and "vLLM" in error.message and error.hint
        return
    assert not family.startswith(("rwkv", "t5", "mpt"))
    assert vllm.command([one], Request(False), Layout(), FOLDER)[:3] == [
        "vllm",
        "serve",
        one.preset.base.repo,
    ]


def test_an_encoder_decoder_is_told_by_its_config_too() -> None:
    with pytest.raises(Mismatch, match="runs no encoder-decoders such as MineForSeq"):
        vllm.check_served("mine", "MineForSeq", {"is_encoder_decoder": True})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"use_rslora": True, "rank_pattern": {"q_proj": 8}, "init_lora_weights": "gaussian"}, ""),
        ({"use_dora": True}, "vLLM has no use_dora in an adapter"),
        (
            {"modules_to_save": ["embed_tokens", "lm_head"]},
            "vLLM has no modules_to_save in an adapter",
        ),
        ({"bias": "lora_only"}, "vLLM has no bias in an adapter"),
        ({"init_lora_weights": "pissa"}, "vLLM has no init_lora_weights=pissa in an adapter"),
        ({"r": 1024}, "vLLM has no rank 1024 in an adapter"),
        ({"peft_type": "IA3"}, "vLLM puts on LoRA alone, and this is IA3"),
    ],
)
def test_adapters_that_vllm_cannot_keep_live(change: dict[str, Any], problem: str) -> None:
    assert vllm.lora_problem(served("alpaca-lora-7b", PLAIN | change)) == problem


def test_stacked_and_scaled_adapters_must_be_merged() -> None:
    assert "stacks several" in vllm.lora_problem(served("stackllama-7b", PLAIN, PLAIN))
    one = served("alpaca-lora-7b", PLAIN)
    assert "scale" in vllm.lora_problem(replace(one, preset=replace(one.preset, adapter_scale=0.5)))


@pytest.mark.parametrize(
    ("rank", "allowed"),
    [(1, 1), (4, 8), (8, 8), (12, 16), (64, 64), (100, 128), (257, 320), (512, 512)],
)
def test_the_rank_is_rounded_up_to_one_that_vllm_knows(rank: int, allowed: int) -> None:
    assert (
        vllm.largest_rank(
            [served("alpaca-lora-7b", PLAIN | {"r": 1, "rank_pattern": {"q_proj": rank}})]
        )
        == allowed
    )


def test_the_command_of_an_adapter_on_several_gpus_and_hosts() -> None:
    one = served("alpaca-lora-13b", PLAIN, architectures=["LlamaForCausalLM"])
    one = replace(one, base=replace(one.base, revision="abc"))
    request = Request(True, dtype="float16", flags=("--enforce-eager",))
    assert vllm.command([one], request, Layout(4, 2), FOLDER, "/opt/vllm") == [
        "/opt/vllm", "serve", "huggyllama/llama-13b", "--host", "127.0.0.1", "--port", "8000",
        "--served-model-name", "huggyllama/llama-13b", "--revision", "abc",
        "--dtype", "float16", "--max-model-len", "2048", "--tokenizer", "/served/tokenizer",
        "--chat-template", "/served/chat_template.jinja", "--generation-config", "/served",
        "--override-generation-config",
        '{"temperature": 0.9, "top_p": 0.9, "top_k": 50, "min_p": 0.0, "repetition_penalty": 1.2}',
        "--enable-lora", "--max-lora-rank", "16", "--max-loras", "1",
        "--tensor-parallel-size", "4", "--pipeline-parallel-size", "2",
        "--distributed-executor-backend", "ray", "--lora-modules",
        '{"name": "alpaca-lora-13b", "path": "org/adapter", '
        '"base_model_name": "huggyllama/llama-13b"}',
        "--enforce-eager",
    ]  # fmt: skip


def test_a_merged_model_is_served_from_its_folder_under_the_presets_name() -> None:
    one = served("alpaca-lora-13b", PLAIN)
    words = vllm.command(
        [replace(one, base=replace(one.base, revision="abc"))],
        Request(False, model="/merged"),
        Layout(data=2),
        FOLDER,
    )
    assert (
        words[2] == "/merged" and words[words.index("--served-model-name") + 1] == "alpaca-lora-13b"
    )
    assert (
        "--revision" not in words
        and "--lora-modules" not in words
        and words[-2:] == ["--data-parallel-size", "2"]
    )


def test_presets_of_one_server_share_base_and_format() -> None:
    one, other = served("alpaca-lora-7b", PLAIN), served("gpt4-alpaca-7b", PLAIN)
    vllm.check_together(
        [one, replace(other, base=one.base, preset=replace(other.preset, format=one.preset.format))]
    )
    with pytest.raises(Mismatch, match="different bases"):
        vllm.check_together([one, served("alpaca-lora-13b", PLAIN)])
    with pytest.raises(Mismatch, match="different prompt formats"):
        vllm.check_together(
            [
                one,
                replace(
                    other,
                    base=one.base,
                    preset=replace(other.preset, format=find("baize-7b").format),
                ),
            ]
        )
    with pytest.raises(Mismatch, match="has no adapter"):
        vllm.check_together([one, replace(one, adapters=())])


def test_code_of_a_checkpoint_is_asked_for_by_name() -> None:
    one = served("falcon-7b", auto_map={"AutoModel": "m.M"})
    pinned = replace(one, base=replace(one.base, revision="c0ffee"))
    assert "--trust-remote-code" not in vllm.command([one], Request(False), Layout(), FOLDER)
    assert "--trust-remote-code" in vllm.command([one], Request(False, code=True), Layout(), FOLDER)
    words = vllm.command([pinned], Request(False, code=True), Layout(), FOLDER)
    assert (
        words[words.index("--code-revision") + 1]
        == words[words.index("--revision") + 1]
        == "c0ffee"
    )
