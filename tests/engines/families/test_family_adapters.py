"""Adapters on all linears and on experts, merged and live, against peft and merging by hand."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.architectures import reference
from support.checkpoints import save_adapter
from support.family_engines import TinyModel, divergence, expected_logits
from support.family_lists import COMPILED, PLANNED, cases, compiler
from support.tiny_families import CASES
from torch import Tensor

from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import Mismatch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
LENGTHS = (1, 9, 19, 40)
MIXERS = ["modality_router", "prediction_coefs", "correction_coefs"]
EXPERTS = ("mixtral", "moe", "qwen3-next", "deepseek", "nemotron-h", "kimi-linear")
# Their files hold all experts of a layer in one tensor.
STACKED = ("granite-moe", "gpt-oss", "llama4", "gemma4: experts")
OF_EXPERTS = [
    name
    for name in PLANNED
    if any(part in name for part in EXPERTS) and not name.startswith(STACKED)
]

_MIXERS = re.compile(r"attn|mamba\.in|mixer\.(in|[qkvo])_proj")


def linear_adapter(tiny: TinyModel, folder: Path, is_live: bool) -> Path:
    """A LoRA of every nn.Linear but the head, by peft.

    Of a mixture peft adapts stacked experts and routers too, which cannot be live: then only what
    is outside of the MLPs. Nor can those that mix the streams of Gemma 3n.
    """
    kind = "SEQ_2_SEQ_LM" if tiny.reference.config.is_encoder_decoder else "CAUSAL_LM"
    # A router of Llama 4 returns more than a matrix, and peft refuses the output of Mamba.
    has_mamba = tiny.name.startswith(("falcon-h1", "nemotron-h"))
    left = ["router"] + (["out_proj"] if has_mamba else [])
    left += MIXERS if is_live else []
    modules: Any = "all-linear"
    if is_live and any(".experts." in name for name in tiny.reference.state_dict()):
        linears = [n for n, m in tiny.reference.named_modules() if type(m) is torch.nn.Linear]
        modules = sorted({n.rpartition(".")[2] for n in linears if _MIXERS.search(n)})
    targets = {"target_modules": modules, "exclude_modules": left, "task_type": kind}
    return save_adapter(folder, tiny.base, std=0.1, **targets)


def live(engine: TransformersEngine, adapter: Path) -> TransformersEngine:
    engine.load_adapter("own", adapter)
    engine.choose((("own", 1.0),))
    return engine


def rows(engine: TransformersEngine, tiny: TinyModel) -> Tensor:
    """[texts, vocab] after texts of several lengths."""
    return torch.stack([engine.logits(tiny.ids(length)).float() for length in LENGTHS])


def expected_rows(model: object, tiny: TinyModel) -> Tensor:
    return torch.stack([expected_logits(model, tiny.ids(length)) for length in LENGTHS])


@pytest.fixture
def is_live() -> bool:
    return False


@pytest.fixture
def on_linears(tiny: TinyModel, is_live: bool, tmp_path: Path) -> tuple[Path, Tensor]:
    """An adapter, and what the model answers with it by peft."""
    adapter = linear_adapter(tiny, tmp_path / "adapter", is_live)
    adapted = peft.PeftModel.from_pretrained(reference(tiny.base), adapter)
    expected = expected_rows(adapted, tiny)
    assert divergence(expected, expected_rows(tiny.reference, tiny)) > 0.01
    return adapter, expected


@cases(CASES)
def test_merged_adapter_of_all_linears(tiny: TinyModel, on_linears: tuple[Path, Tensor]) -> None:
    adapter, expected = on_linears
    engine = tiny.open(adapter, weights="fp32")
    torch.testing.assert_close(rows(engine, tiny), expected, rtol=0, atol=2e-4)


@cases(PLANNED)
@pytest.mark.parametrize("is_live", [True], ids=["live"])
def test_live_adapter_of_all_linears(tiny: TinyModel, on_linears: tuple[Path, Tensor]) -> None:
    adapter, expected = on_linears
    engine = live(tiny.open(weights="fp32"), adapter)
    torch.testing.assert_close(rows(engine, tiny), expected, rtol=0, atol=2e-4)


@compiler
@cases(COMPILED)
@pytest.mark.parametrize("is_live", [False, True], ids=["merged", "live"])
def test_adapter_of_all_linears_in_int8(
    is_live: bool, tiny: TinyModel, on_linears: tuple[Path, Tensor]
) -> None:
    adapter, expected = on_linears
    engine = live(tiny.open(), adapter) if is_live else tiny.open(adapter)
    # In a mixture, a rounding can choose another expert.
    has_experts = any(".experts." in name for name in tiny.reference.state_dict())
    assert divergence(expected, rows(engine, tiny)) <= (1.5e-2 if has_experts else 4e-3)


@cases(["gemma3n"])
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_live_adapter_of_weights_that_stay_floats_is_refused(
    weights: str, tiny: TinyModel, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path, tiny.base, target_modules=["q_proj", MIXERS[0]])
    with pytest.raises(Mismatch, match=r"modality_router.* cannot be applied live"):
        tiny.open(weights=weights).load_adapter("own", adapter)


@pytest.fixture
def on_experts(tiny: TinyModel, tmp_path: Path) -> tuple[Path, Tensor]:
    """An adapter of each expert's linears, and what the model answers with them merged by hand."""
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    shutil.copytree(tiny.base, merged)
    tensors, generator = load_file(tiny.base / "model.safetensors"), torch.Generator()
    matrices = {}
    for name in [name for name in tensors if ".experts." in name]:
        (out, in_), module = tensors[name].shape, name.removesuffix(".weight")
        a = torch.randn(4, in_, generator=generator) * 0.1
        b = torch.randn(out, 4, generator=generator) * 0.1
        matrices[f"base_model.model.{module}.lora_A.weight"] = a
        matrices[f"base_model.model.{module}.lora_B.weight"] = b
        tensors[name] = tensors[name] + 2.0 * b @ a
    save_file(tensors, merged / "model.safetensors", {"format": "pt"})
    adapter.mkdir()
    save_file(matrices, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    return adapter, expected_rows(reference(merged), tiny)


@cases(OF_EXPERTS)
def test_merged_adapter_of_experts(tiny: TinyModel, on_experts: tuple[Path, Tensor]) -> None:
    adapter, expected = on_experts
    engine = tiny.open(adapter, weights="fp32")
    torch.testing.assert_close(rows(engine, tiny), expected, rtol=0, atol=2e-4)


@cases(OF_EXPERTS)
def test_live_adapter_of_experts(tiny: TinyModel, on_experts: tuple[Path, Tensor]) -> None:
    adapter, expected = on_experts
    engine = live(tiny.open(weights="fp32"), adapter)
    torch.testing.assert_close(rows(engine, tiny), expected, rtol=0, atol=2e-4)


@compiler
@cases([name for name in OF_EXPERTS if name in COMPILED])
@pytest.mark.parametrize("is_live", [False, True], ids=["merged", "live"])
def test_adapter_of_experts_in_int8(
    is_live: bool, tiny: TinyModel, on_experts: tuple[Path, Tensor]
) -> None:
    adapter, expected = on_experts
    engine = live(tiny.open(), adapter) if is_live else tiny.open(adapter)
    assert divergence(expected, rows(engine, tiny)) <= 4e-3


@cases([name for name in CASES if name.startswith(STACKED) and "dense" not in name])
def test_adapter_of_stacked_experts(tiny: TinyModel, tmp_path: Path) -> None:
    """peft changes such a tensor as a parameter; the engine merges it."""
    parameters = [
        name
        for name, parameter in tiny.reference.named_parameters()
        if "experts" in name and parameter.dim() == 3
    ]
    adapter = save_adapter(
        tmp_path, tiny.base, std=0.1, target_modules=[], target_parameters=parameters
    )
    adapted = peft.PeftModel.from_pretrained(reference(tiny.base), adapter)
    expected = expected_rows(adapted, tiny)
    assert not torch.allclose(expected, expected_rows(tiny.reference, tiny), atol=0.01)
    engine = tiny.open(adapter, weights="fp32")
    torch.testing.assert_close(rows(engine, tiny), expected, rtol=0, atol=2e-4)
