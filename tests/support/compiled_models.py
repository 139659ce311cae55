"""Small random models and adapters for the compiled step, and where it can be built."""

import platform
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.check import linears
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.live_lora import LiveAdapter
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.settings.types import Weights

needs_compiler = [
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "aarch64"),
        reason="the kernels are for x86-64 and aarch64",
    ),
    pytest.mark.skipif(
        not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
    ),
]
# Compiler flags for each path of the preprocessor; "native" is the one this processor takes.
PATHS = {"native": (), "avx2": ("-mno-avx512f", "-mno-avxvnni"), "plain": ("-DLLMCHAT_PLAIN",)}
if platform.machine() != "x86_64":
    del PATHS["avx2"]

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    },
    "heads of 80, one of keys": {
        "hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 1,
    },
    "all heads have keys, odd widths": {
        "hidden_size": 72, "head_dim": 16, "num_key_value_heads": 4, "intermediate_size": 101,
        "vocab_size": 333,
    },
}  # fmt: skip


def make_config(**changes: Any) -> dict[str, Any]:
    base = {
        "model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip
    return base | changes


def plan_for(config: dict[str, Any]) -> Plan:
    plan = plan_of(config)
    assert plan is not None
    return plan


def torch_model(config: dict[str, Any], tensors: Tensors, kind: Weights = "fp32") -> TorchForward:
    """The reference on the CPU."""
    return TorchForward(plan_for(config), viewed(config, tensors), kind, torch.device("cpu"))


def linear_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """[out, in] of every linear but the head, by its name."""
    return {linear.module: linear.shape for linear in list(linears(plan_for(config)))[:-1]}


def make_tensors(config: dict[str, Any], seed: int = 0) -> MemoryTensors:
    """Random weights that 8 bits hold exactly, so that what differs is the arithmetic."""
    torch.manual_seed(seed)
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    state = {
        "model.norm.weight": 1 + 0.1 * torch.randn(hidden),
        "model.embed_tokens.weight": rounded(torch.randn(vocabulary, hidden)).bfloat16().float(),
    }
    if not config["tie_word_embeddings"]:
        state["lm_head.weight"] = rounded(torch.randn(vocabulary, hidden) / hidden**0.5)
    for name, (out, in_) in linear_shapes(config).items():
        state[f"{name}.weight"] = rounded(torch.randn(out, in_) / in_**0.5)
        if config["model_type"] == "qwen2" and name.endswith(("q_proj", "k_proj", "v_proj")):
            state[f"{name}.bias"] = 0.3 * torch.randn(out)
    for layer in range(config["num_hidden_layers"]):
        for norm in ("input", "post_attention"):
            state[f"model.layers.{layer}.{norm}_layernorm.weight"] = 1 + 0.1 * torch.randn(hidden)
    return MemoryTensors(state)


def rounded(weight: Tensor) -> Tensor:
    """The numbers that int8 holds of a weight."""
    quantised, scb = quantise_rows(weight)
    return dequantised(quantised, scb).float()


def dequantised(weight: Tensor, scb: Tensor) -> Tensor:
    """[out, in] in float64, exact but for the rounding of the step."""
    return weight.double() * (scb / 127).double()[:, None]


def make_adapter(
    config: dict[str, Any], rank: int, seed: int, *, names: tuple[str, ...] = ("_proj",)
) -> LiveAdapter:
    """A live adapter of the linears whose names end like `names`."""
    torch.manual_seed(seed)
    modules = {}
    for name, (out, in_) in linear_shapes(config).items():
        if name.endswith(names):
            a = torch.randn(rank, in_).bfloat16() / in_**0.5
            modules[name] = a, torch.randn(out, rank).bfloat16(), 0.2
    return LiveAdapter(f"adapter {seed}", modules)


def random_ids(config: dict[str, Any], count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config["vocab_size"], (count,), generator=generator).tolist()


def logits_of(model: Any, ids: list[int], **options: Any) -> Tensor:
    """Logits of every token, run at once with a new cache."""
    sequence = SequenceInput(model.new_cache(), ids, all_logits=True, **options)
    with torch.inference_mode():
        logits: Tensor = model.run([sequence])[0]
    return logits


def error(got: Tensor, exact: Tensor) -> float:
    """The relative error in the Euclidean norm."""
    return float((got.double() - exact.double()).norm() / exact.double().norm())
