"""No part of an adapter is lost without a word: embeddings, heads and what peft saves whole.

peft's own forward pass, not its merge, is the reference: merging into a tied matrix changes both
the embedding and the head.
"""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import save_adapter, save_tiny, tiny_config
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.prepared_checkpoint import Preparation
from llmchat.errors import Mismatch

IDS = [1, 5, 9, 30, 31, 77]
NEOX = GPTNeoXConfig(
    vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
BASES = {
    "llama": tiny_config(),
    "llama, tied": tiny_config(tie_word_embeddings=True),
    "gpt-neox": NEOX,
}
EMBEDDING = {"llama": "embed_tokens", "llama, tied": "embed_tokens", "gpt-neox": "embed_in"}
HEAD = {"llama": "lm_head", "llama, tied": "lm_head", "gpt-neox": "lm_head"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: save_tiny(tmp_path_factory.mktemp("base"), config) for name, config in BASES.items()
    }


def of_peft(base: Path, adapter: Path) -> Tensor:
    """Logits after IDS of the base with the adapter beside it, as it was trained."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.inference_mode():
        logits: Tensor = tuned(torch.tensor([IDS])).logits[0, -1]
    return logits


def ours(base: Path, *adapters: Path, weights: Any = "fp32", **options: Any) -> Tensor:
    return (
        TransformersEngine(base, adapters, weights=weights, device="cpu", **options)
        .logits(IDS)
        .float()
    )


def saved_parts(*names: str) -> dict[str, Any]:
    return {"modules_to_save": list(names), "target_modules": ["q_proj"]}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("part", ["embedding", "head", "both", "saved embedding", "saved head"])
def test_a_merged_adapter_changes_embedding_and_head_as_in_training(
    name: str, part: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    base, embedding, head = bases[name], EMBEDDING[name], HEAD[name]
    linear = ["query_key_value"] if name == "gpt-neox" else ["q_proj"]
    lora = {
        "embedding": {"target_modules": [*linear, embedding]},
        "head": {"target_modules": [*linear, head]},
        "both": {"target_modules": [*linear, embedding, head]},
        "saved embedding": saved_parts(embedding) | {"target_modules": linear},
        "saved head": saved_parts(head) | {"target_modules": linear},
    }[part]
    adapter = save_adapter(tmp_path / "adapter", base, **lora)
    change_saved(adapter)
    expected = of_peft(base, adapter)
    assert not torch.allclose(expected, ours(base), atol=0.05)
    torch.testing.assert_close(ours(base, adapter), expected, rtol=1e-3, atol=1e-3)


def change_saved(adapter: Path) -> None:
    """Change what the adapter brings whole, so that leaving it out would be seen."""
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(7)
    for key, tensor in tensors.items():
        if (
            "lora_" not in key
            and "base_layer" not in key
            and key.endswith(("embed_tokens.weight", "embed_in.weight", "lm_head.weight"))
        ):
            tensors[key] = tensor + torch.randn(tensor.shape, generator=generator) * 0.2
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["llama, tied", "gpt-neox"])
def test_a_prepared_copy_of_an_untied_model_gives_the_same_numbers(
    name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", bases[name], target_modules=[EMBEDDING[name]])
    (tmp_path / "copy").mkdir()
    Preparation(bases[name], [adapter]).write(tmp_path / "copy")
    copied = ours(bases[name], prepared=tmp_path / "copy", weights="int8")
    torch.testing.assert_close(copied, ours(bases[name], adapter, weights="int8"), rtol=0, atol=0)
    assert (
        json.loads((tmp_path / "copy" / "config.json").read_text("utf-8"))["tie_word_embeddings"]
        is False
    )


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_live_adapter_changes_the_head(
    name: str, weights: Any, bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases[name]
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=[HEAD[name]])
    engine = TransformersEngine(base, weights=weights, device="cpu")
    plain = engine.logits(IDS).float()
    engine.load_adapter("head", adapter)
    engine.choose((("head", 1.0),))
    live = engine.logits(IDS).float()
    tolerance = 1e-3 if weights == "fp32" else 0.5
    torch.testing.assert_close(live, of_peft(base, adapter), rtol=tolerance, atol=tolerance)
    assert not torch.allclose(live, plain, atol=0.1)
    engine.choose(())
    torch.testing.assert_close(engine.logits(IDS).float(), plain, rtol=0, atol=0)


def test_a_live_adapter_on_an_embedding_is_refused_by_name(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = save_adapter(
        tmp_path / "adapter", bases["llama"], target_modules=["embed_tokens", "q_proj"]
    )
    engine = TransformersEngine(bases["llama"], device="cpu", weights="fp32")
    with pytest.raises(
        Mismatch, match=r"changes the embedding `model\.embed_tokens`, so it cannot be applied live"
    ):
        engine.load_adapter("table", adapter)


def test_a_tensor_that_cannot_be_applied_refuses_the_adapter(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", bases["llama"])
    path = adapter / "adapter_model.safetensors"
    save_file(
        load_file(path) | {"base_model.model.model.layers.0.mlp.lora_gate": torch.ones(3)}, path
    )
    with pytest.raises(
        Mismatch, match=r"holds `base_model\..*\.mlp\.lora_gate`, which llmchat cannot apply"
    ):
        ours(bases["llama"], adapter)


def test_biases_that_the_base_has_no_place_for_are_one_clear_refusal(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", bases["llama"], lora_bias=True)
    with pytest.raises(Mismatch, match=r"peft cannot merge the adapter adapter: .*bias"):
        ours(bases["llama"], adapter)
