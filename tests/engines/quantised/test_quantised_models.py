"""Whole models from quantised safetensors: their answers are those of the dequantised weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.checkpoints import save_adapter, save_tiny, tiny_config
from support.family_engines import all_logits, divergence, executor
from support.quantised_files import FORMATS, quantise_checkpoint
from support.tiny_checkpoints import save_case
from support.tiny_families import CASES

from llmchat.engines import Chunk, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.gguf_export import Export
from llmchat.engines.transformers.modules.auto_classes import load_whole
from llmchat.engines.transformers.plain_checkpoint import plain_checkpoint
from llmchat.engines.transformers.prepared_checkpoint import Preparation
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import Mismatch
from llmchat.hub.gguf_folder import write_folder
from llmchat.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = list(range(10, 60))
# One of each kind, in the ways that tensors are found and read.
CHATS = (
    "gptq 4-bit", "gptq 4-bit, act-order", "gptq 3-bit", "gptq 8-bit", "awq gemm",
    "ct int4 groups", "ct int4 groups, asymmetric", "ct int8 channels", "ct fp8 channels",
    "fp8 blocks", "nf4 nested",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(hidden_size=64, intermediate_size=96)
    return save_tiny(tmp_path_factory.mktemp("base"), config)


def opened(folder: Path, *adapters: Path, **options: Any) -> TransformersEngine:
    return TransformersEngine(folder, adapters, **({"device": "cpu"} | options))


def answer_of(engine: TransformersEngine) -> str:
    events = engine.stream(Prompt("The quick brown", ()), Sampling(temperature=0, max_tokens=8))
    return "".join(event.text for event in events if isinstance(event, Chunk))


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_has_the_logits_of_the_dequantised_model(
    name: str, base: Path, tmp_path: Path
) -> None:
    made, twin = quantise_checkpoint(base, tmp_path, FORMATS[name])
    for weights in ("fp32", "int8"):
        ours, theirs = (opened(folder, weights=weights) for folder in (made, twin))
        assert executor(ours) == "torch"
        torch.testing.assert_close(ours.logits(IDS), theirs.logits(IDS), rtol=1e-4, atol=1e-4)
    assert answer_of(ours) == answer_of(theirs)


@pytest.mark.parametrize("name", CHATS)
def test_the_compiled_step_is_near_the_dequantised_model(
    name: str, base: Path, tmp_path: Path, kernel_folder: Path
) -> None:
    made, twin = quantise_checkpoint(base, tmp_path, FORMATS[name])
    ours = opened(made, weights="int8", kernels=kernel_folder)
    exact = opened(twin, weights="fp32")
    assert executor(ours) == "compiled"
    assert divergence(all_logits(exact, IDS), all_logits(ours, IDS)) < 0.002


@pytest.mark.parametrize("name", ["arcee", "arcee: odd, all biases"])
def test_a_gguf_file_of_arcee_runs_in_the_compiled_step(
    name: str, tmp_path: Path, kernel_folder: Path
) -> None:
    """Its MLP has no gate."""
    file, made = tmp_path / "a.gguf", tmp_path / "made"
    Export(save_tiny(tmp_path / "base", CASES[name].config()), (), 1.0, "Q8_0", {}).write(file)
    made.mkdir()
    write_folder([file], made)
    ours = opened(made, weights="int8", kernels=kernel_folder)
    exact = opened(made, weights="fp32")
    assert (executor(ours), executor(exact)) == ("compiled", "torch")
    assert divergence(all_logits(exact, IDS), all_logits(ours, IDS)) < 0.002


@pytest.mark.parametrize("name", ["gptq 4-bit, act-order", "awq gemm", "ct int8 channels"])
def test_a_prepared_copy_keeps_the_numbers(
    name: str, base: Path, tmp_path: Path, kernel_folder: Path
) -> None:
    made, _ = quantise_checkpoint(base, tmp_path, FORMATS[name])
    (copy := tmp_path / "copy").mkdir()
    Preparation(made).write(copy)
    unprepared = opened(made, weights="int8", kernels=kernel_folder)
    prepared = opened(made, weights="int8", kernels=kernel_folder, prepared=copy)
    assert torch.equal(unprepared.logits(IDS), prepared.logits(IDS))
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (copy, made)]
    assert sizes[0] <= 1.1 * sizes[1]


def test_an_adapter_is_merged_into_the_dequantised_weights(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", base)
    made, twin = quantise_checkpoint(base, tmp_path, FORMATS["gptq 4-bit"])
    ours, theirs = (opened(folder, adapter, weights="fp32") for folder in (made, twin))
    torch.testing.assert_close(ours.logits(IDS), theirs.logits(IDS), rtol=1e-4, atol=1e-4)
    assert not torch.equal(ours.logits(IDS), opened(twin, weights="fp32").logits(IDS))
    tensors = open_tensors(made, [adapter])
    name = "model.layers.0.self_attn.{}_proj.weight"
    assert tensors.grouped(name.format("q")) is None
    assert tensors.grouped(name.format("k")) is not None


def test_programs_that_read_16_bits_get_them(base: Path, tmp_path: Path) -> None:
    """Training, and the libraries that a benchmark compares with."""
    made, twin = quantise_checkpoint(base, tmp_path, FORMATS["gptq 4-bit, act-order"])
    with plain_checkpoint(made) as folder:
        assert "quantization_config" not in _json(folder / "config.json")
        values = load_file(folder / "model.safetensors")
    for name, tensor in load_file(twin / "model.safetensors").items():
        assert torch.equal(values[name], tensor.bfloat16()), name
    with plain_checkpoint(twin) as folder:
        assert folder == twin


def test_a_model_without_a_plan_runs_on_modules(tmp_path: Path) -> None:
    """transformers' own readers of these formats want a GPU; it gets dequantised weights."""
    config = transformers.PersimmonConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    base = save_tiny(tmp_path / "base", config)
    made, twin = quantise_checkpoint(base, tmp_path, FORMATS["awq gemm"])
    ours, theirs = (opened(folder, weights="int8") for folder in (made, twin))
    assert executor(ours) == "modules"
    assert torch.equal(ours.logits(IDS), theirs.logits(IDS))


def test_gpt_oss_keeps_its_experts_in_mxfp4(tmp_path: Path, kernel_folder: Path) -> None:
    """gate and up alternate row by row; transformers dequantises the same values."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    base = save_case("gpt-oss", tmp_path / "base")
    state, config = load_file(base / "model.safetensors"), _json(base / "config.json")
    quantised, generator = dict(state), torch.Generator().manual_seed(0)
    for name in [name for name in state if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, in_, rows = state[name].shape
        groups = -(-in_ // 32)
        assert groups * 32 == in_
        blocks = torch.randint(0, 256, (experts, rows, groups, 16), generator=generator).byte()
        scales = torch.randint(119, 125, (experts, rows, groups), generator=generator).byte()
        del quantised[name]
        quantised |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        state[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    twin = _like(base, tmp_path / "twin", state, config)
    table = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    made = _like(base, tmp_path / "made", quantised, config | {"quantization_config": table})
    for weights in ("fp32", "int8"):
        ours, theirs = (opened(folder, weights=weights) for folder in (made, twin))
        torch.testing.assert_close(ours.logits(IDS), theirs.logits(IDS), rtol=1e-4, atol=1e-4)
    step = opened(made, weights="int8", kernels=kernel_folder)
    exact = opened(twin, weights="fp32")
    assert executor(step) == "compiled"
    assert divergence(all_logits(exact, IDS), all_logits(step, IDS)) < 0.01
    grouped = open_tensors(made, []).grouped("model.layers.0.mlp.experts.0.up_proj.weight")
    assert grouped is not None and grouped.table is not None


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _like(base: Path, folder: Path, state: dict[str, Any], config: dict[str, Any]) -> Path:
    folder.mkdir()
    for path in base.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_experts_that_transformers_would_assemble_are_refused_in_one_line(tmp_path: Path) -> None:
    """Without a plan, fused experts are loaded by transformers, which cannot read these files."""
    config = {"model_type": "phimoe", "quantization_config": FORMATS["gptq 4-bit"].table}
    with pytest.raises(Mismatch, match="made is quantised, and transformers"):
        load_whole(tmp_path / "made", config, torch.float32)
