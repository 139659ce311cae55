"""Checkpoints of the Llama family whose tensors do not fit their config.

Every executor refuses them with an error of one line.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import save_tiny, tiny_config
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.compiled.structs import TensorRefs
from llmchat.engines.transformers.prepared_checkpoint import Preparation
from llmchat.engines.transformers.vocabulary import check_ids
from llmchat.errors import IntegrityError, LlmchatError, Mismatch
from llmchat.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")
Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), tiny_config(attention_bias=True))


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def changed(base: Path, target: Path, change: Change | None = None, **config: Any) -> Path:
    """A copy of a checkpoint with other tensors, or other numbers in its config."""
    shutil.copytree(base, target)
    if change:
        edit(target / "model.safetensors", change)
    table = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(table))
    return target


def edit(path: Path, change: Change) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt"},
    )


def part(name: str, *size: int) -> Change:
    """The tensor with another shape: cut, or repeated."""

    def change(tensors: dict[str, Tensor]) -> None:
        flat = tensors[name].flatten()
        count = int(torch.tensor(size).prod())
        tensors[name] = flat.repeat(count // len(flat) + 1)[:count].reshape(size)

    return change


def filled(name: str, value: float) -> Change:
    return lambda tensors: tensors[name].view(-1).narrow(0, 3, 1).fill_(value)


LAYER = "model.layers.1."
WRONG: dict[str, Change] = {
    "a head with more rows than the embedding": part("lm_head.weight", 5000, 64),
    "a head with fewer rows": part("lm_head.weight", 100, 64),
    "a narrower head": part("lm_head.weight", 320, 32),
    "a wider head": part("lm_head.weight", 320, 96),
    "an embedding of other width": part("model.embed_tokens.weight", 320, 32),
    "a smaller embedding": part("model.embed_tokens.weight", 100, 64),
    "an embedding with three dimensions": part("model.embed_tokens.weight", 320, 8, 8),
    "a shorter norm": part("model.norm.weight", 10),
    "a longer norm in a layer": part(f"{LAYER}input_layernorm.weight", 65),
    "queries of other height": part(f"{LAYER}self_attn.q_proj.weight", 48, 64),
    "keys with as many heads as queries": part(f"{LAYER}self_attn.k_proj.weight", 64, 64),
    "a turned matrix": part(f"{LAYER}mlp.down_proj.weight", 96, 64),
    "a matrix without rows": part(f"{LAYER}mlp.up_proj.weight", 0, 64),
    "a shorter bias": part(f"{LAYER}self_attn.v_proj.bias", 7),
    "queries and keys with a bias, values without": lambda tensors: tensors.pop(
        f"{LAYER}self_attn.v_proj.bias"
    ),
    "a layer without a matrix": lambda tensors: tensors.pop(f"{LAYER}mlp.gate_proj.weight"),
    "a NaN in a matrix": filled(f"{LAYER}mlp.up_proj.weight", float("nan")),
    "infinity in the head": filled("lm_head.weight", float("inf")),
    "a NaN in a norm": filled("model.norm.weight", float("nan")),
    "a NaN in a bias": filled(f"{LAYER}self_attn.q_proj.bias", float("nan")),
}


def refuse(folder: Path, kernels: Path | None) -> LlmchatError:
    with pytest.raises((Mismatch, IntegrityError)) as caught:
        TransformersEngine(folder, kernels=kernels)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("fault", WRONG)
def test_compiled_executor_and_preparation_refuse_a_wrong_tensor(
    base: Path, tmp_path: Path, kernels: Path, fault: str
) -> None:
    folder = changed(base, tmp_path / "wrong", WRONG[fault])
    refuse(folder, kernels)
    with pytest.raises((Mismatch, IntegrityError)):
        Preparation(folder).write(tmp_path)


@pytest.mark.parametrize(
    "fault", [fault for fault in WRONG if "NaN" not in fault and "infinity" not in fault]
)
def test_torch_executor_refuses_the_same_shapes(base: Path, tmp_path: Path, fault: str) -> None:
    refuse(changed(base, tmp_path / "wrong", WRONG[fault]), None)


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": 3, "num_key_value_heads": 2},
        {"num_key_value_heads": -2},
        {"hidden_size": 2**63},
        {"num_hidden_layers": 2**63},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 3},
        {"vocab_size": 999},
        {"vocab_size": True},
        {"intermediate_size": "96"},
        {"head_dim": 7},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": "small"},
        {"rope_parameters": {"rope_type": "linear", "factor": 0.0}},
        {"rope_parameters": {"rope_type": "llama3"}},
        {"rope_parameters": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("compiled", [True, False])
def test_invalid_config_is_refused(
    base: Path, tmp_path: Path, kernels: Path, config: dict[str, Any], compiled: bool
) -> None:
    refuse(changed(base, tmp_path / "wrong", **config), kernels if compiled else None)


def test_absurd_number_of_layers_takes_no_memory(base: Path, tmp_path: Path) -> None:
    """The names of 2^30 layers would take a hundred gigabytes."""
    folder = changed(base, tmp_path / "wrong", num_hidden_layers=2**30)
    with pytest.raises(Mismatch, match=r"1,073,741,824"):
        Preparation(folder)


PREPARED: dict[str, tuple[str, Change]] = {
    "a head with more rows": ("head.safetensors", part("weight", 400, 64)),
    "a head with fewer rows": ("head.safetensors", part("weight", 300, 64)),
    "a narrower head": ("head.safetensors", part("weight", 320, 60)),
    "a head with other scales": ("head.safetensors", part("SCB", 100)),
    "a head without scales": ("head.safetensors", lambda tensors: tensors.pop("SCB")),
    "a head of floats": (
        "head.safetensors",
        lambda tensors: tensors.update(weight=tensors["weight"].float()),
    ),
    "a NaN among the scales": ("head.safetensors", filled("SCB", float("nan"))),
    "a matrix of other height": ("model.safetensors", part(f"{LAYER}mlp.up_proj.weight", 90, 64)),
    "a shorter scale": ("model.safetensors", part(f"{LAYER}mlp.up_proj.SCB", 90)),
    "a scale without a matrix": (
        "model.safetensors",
        lambda tensors: tensors.pop(f"{LAYER}mlp.up_proj.weight"),
    ),
    "infinity in a scale": (
        "model.safetensors",
        filled(f"{LAYER}self_attn.q_proj.SCB", float("inf")),
    ),
    "a matrix of other numbers": (
        "model.safetensors",
        lambda tensors: tensors.update(
            {f"{LAYER}mlp.up_proj.weight": tensors[f"{LAYER}mlp.up_proj.weight"].short()}
        ),
    ),
}


@pytest.mark.parametrize("fault", PREPARED)
def test_prepared_copy_that_was_changed_on_disk_is_refused(
    base: Path, tmp_path: Path, kernels: Path, fault: str
) -> None:
    (tmp_path / "copy").mkdir()
    Preparation(base).write(tmp_path / "copy")
    name, change = PREPARED[fault]
    edit(tmp_path / "copy" / name, change)
    with pytest.raises(IntegrityError):
        TransformersEngine(base, prepared=tmp_path / "copy", kernels=kernels)


def test_adapter_of_other_shapes_is_refused() -> None:
    good = torch.zeros(4, 64), torch.zeros(96, 4)
    TensorRefs().lora(*good, 1.0, (96, 64))
    for a, b in [
        (torch.zeros(4, 60), good[1]),
        (torch.zeros(6, 64), good[1]),
        (good[0], torch.zeros(90, 4)),
    ]:
        with pytest.raises(IntegrityError, match="of an adapter is"):
            TensorRefs().lora(a, b, 1.0, (96, 64))


def test_token_beyond_the_embedding_is_reported(tmp_path: Path, kernels: Path) -> None:
    """The tokenizer has tokens that the weights were not resized for, or is another model's."""
    folder = save_tiny(tmp_path / "small", tiny_config(vocab_size=200))
    for step in (kernels, None):
        engine = TransformersEngine(folder, kernels=step)
        with pytest.raises(
            Mismatch, match=r"the tokenizer produced token \d{3}; the model has 200 tokens"
        ):
            next(engine.stream(Prompt("the quick brown fox", ()), Sampling(max_tokens=1)))
    for token in (-1, 320):
        with pytest.raises(Mismatch):
            check_ids([5, token], 320)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_logits_that_are_not_finite_are_an_error(
    base: Path, tmp_path: Path, kernels: Path, temperature: float, penalty: float
) -> None:
    """The rows of a mapped embedding are not checked when it is opened."""
    (tmp_path / "copy").mkdir()
    Preparation(base).write(tmp_path / "copy")
    edit(
        tmp_path / "copy" / "model.safetensors",
        lambda tensors: tensors["model.embed_tokens.weight"].fill_(float("nan")),
    )
    for step in (kernels, None):
        engine = TransformersEngine(base, prepared=tmp_path / "copy", kernels=step)
        sampling = Sampling(max_tokens=2, temperature=temperature, repetition_penalty=penalty)
        with pytest.raises(IntegrityError, match="NaN or infinity"):
            list(engine.stream(Prompt("hello", ()), sampling))


def test_infinity_as_transformers_writes_it_is_a_number(tmp_path: Path) -> None:
    """A config.json of transformers 5, whose JSON has no infinity."""
    written = '{"time_step_limit": [0.0, {"__float__": "Infinity"}], "a": {"__float__": 1}}'
    (tmp_path / "config.json").write_text(written)
    assert read_json(tmp_path / "config.json") == {
        "time_step_limit": [0.0, float("inf")],
        "a": {"__float__": 1},
    }
