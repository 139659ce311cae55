"""Repos of quantised weights: what a pull counts, and what is refused before a download."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from support.checkpoints import save_tiny
from support.loopback_hub import Hub, Repo
from support.quantised_files import FORMATS, quantise_checkpoint
from support.worlds import MakeWorld

from llmchat import memory_estimate
from llmchat.errors import Mismatch
from llmchat.hub import inspect, report
from llmchat.models import pulling
from llmchat.output.progress import NoProgress
from llmchat.presets import Source, find

pytestmark = pytest.mark.usefixtures("no_waiting")
KINDS = {
    "gptq 4-bit": "GPTQ 4-bit",
    "awq gemm": "AWQ 4-bit",
    "ct int4 groups": "compressed-tensors int4",
    "fp8 blocks": "FP8 E4M3",
    "nf4": "NF4",
}


def quantised_repo(name: str, hub: Hub, tmp_path: Path) -> Path:
    base = save_tiny(tmp_path / "base")
    made, _ = quantise_checkpoint(base, tmp_path / "made", FORMATS[name])
    hub.repos["org/quantised"] = Repo.of_folder(made, licence="apache-2.0")
    return made


@pytest.mark.parametrize("name", KINDS)
def test_headers_tell_the_kind_and_the_shapes_of_the_model(
    name: str, hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    quantised_repo(name, hub, tmp_path)
    found = inspect(Source("hub", "org/quantised"), at())
    assert found.quantised.kind == KINDS[name] and not found.quantised.refused[0]
    # Of NF4, the shape lies in a tensor.
    flat = name == "nf4"
    shape = (96 * 64,) if flat else (96, 64)
    assert found.shapes["model.layers.1.mlp.up_proj.weight"] == shape
    assert {kind.kind for kind in found.quantised.kinds} == {KINDS[name], "float32"}
    assert all(request.range for request in hub.downloads())


def test_a_plan_counts_the_bytes_that_the_weights_have(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    made = quantised_repo("gptq 4-bit", hub, tmp_path)
    plan = pulling.plan_pull(find("org/quantised"), at()).plan
    codes = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in torch_file(made).items()
        if name.endswith(("qweight", "qzeros", "scales", "g_idx"))
    )
    tables, norms = 2 * 320 * 64, 5 * 64
    weights = plan.memory.total["int8"] - plan.memory.kv - memory_estimate.OVERHEAD
    assert weights == codes + 2 * (tables + norms)
    assert plan.quantised == "GPTQ 4-bit" and "int4" not in plan.memory.total
    lines = report.lines(plan)
    assert any("GPTQ 4-bit" in line and "(chosen)" in line for line in lines)


def torch_file(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_weights_that_are_dequantised_count_as_int8(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    quantised_repo("fp8 blocks", hub, tmp_path)
    plan = pulling.plan_pull(find("org/quantised"), at()).plan
    assert plan.quantised == "" and plan.verdict == "yes"
    assert plan.memory.total["int4"] < plan.memory.total["int8"] < plan.memory.total["bf16"]


@pytest.mark.parametrize("weights", ["model.safetensors", "output.safetensors"])
def test_exl2_is_refused_before_the_download(
    weights: str, hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    """Also where its weights have a name that no checkpoint of transformers has."""
    config = {"model_type": "llama", "quantization_config": {"quant_method": "exl2", "bits": 4.0}}
    files: dict[str, Any] = {
        "config.json": json.dumps(config).encode(),
        weights: save({"model.layers.0.mlp.up_proj.q_weight": torch.zeros(64, 64)}),
    }
    hub.repos["org/quantised"] = Repo(files)
    with pytest.raises(Mismatch, match="org/quantised: the weights are EXL2") as caught:
        planned = pulling.plan_pull(find("org/quantised"), at())
        planned.plan.enforce(force=True)
    assert "GGUF" in caught.value.hint
    assert hub.sent < 2_000


def test_a_quantised_repo_is_pulled_with_its_own_table(
    hub: Hub, at: MakeWorld, tmp_path: Path
) -> None:
    """Older repos describe their quantisation in quantize_config.json."""
    made = quantised_repo("gptq 4-bit", hub, tmp_path)
    files = hub.repos["org/quantised"].files
    config = json.loads(files["config.json"])
    table = config.pop("quantization_config")
    files["config.json"] = json.dumps(config).encode()
    files["quantize_config.json"] = json.dumps(table).encode()
    planned = pulling.plan_pull(find("org/quantised"), at())
    assert planned.plan.quantised == "GPTQ 4-bit"
    pulled = pulling.pull(planned, at(), NoProgress())
    assert (pulled[0].checkpoint.path / "quantize_config.json").exists()
    assert made.exists()
