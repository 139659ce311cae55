"""benchmarks/families.py: shapes, random checkpoints, ratios and the table."""

from pathlib import Path
from typing import Any

import families
import pytest
import random_checkpoint
import torch
from families import Work
from family_shapes import SCALES, SHAPES, SMALL_VOCABULARY, Shape, chosen

from llmchat.bench.interleave import MeasurementFailed, Measurements
from llmchat.engines.transformers.weights import open_tensors


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_a_config_of_transformers(name: str, scale: str) -> None:
    config = SHAPES[name].config(scale)
    assert config.vocab_size == SMALL_VOCABULARY or scale == "full"
    kinds = getattr(config, "layer_types", None)
    assert kinds is None or len(kinds) == config.num_hidden_layers


def test_small_hybrids_keep_every_kind_of_layer() -> None:
    for name, shape in SHAPES.items():
        kinds = [set(getattr(shape.config(scale), "layer_types", None) or ()) for scale in SCALES]
        assert kinds[0] == kinds[1], name


def test_reference_is_measured_first_and_the_largest_only_when_named() -> None:
    assert chosen(["qwen3", "gemma3"]) == ["llama", "qwen3", "gemma3"]
    assert chosen(["llama"]) == ["llama"]
    assert "moe-16b" not in chosen([]) and set(chosen([])) == set(SHAPES) - {"moe-16b"}
    assert "moe-16b" in chosen(["moe-16b"])


TINY: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 8},
}  # fmt: skip


def tiny_shape(model_type: str, **more: Any) -> Shape:
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 300,
    }  # fmt: skip
    return Shape("tiny", model_type, 2, 2, sizes | TINY[model_type], **more)


@pytest.mark.parametrize("model_type", TINY)
def test_checkpoint_is_what_transformers_loads(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setitem(SHAPES, "tiny", tiny_shape(model_type))
    random_checkpoint.write_checkpoint("tiny", "full", tmp_path)
    model, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, 7]])).logits
    assert logits.isfinite().all() and logits.std() > 0
    assert not (tmp_path / "unfinished").exists()


def test_int8_checkpoint_has_the_tensors_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = {}
    for int8 in (False, True):
        monkeypatch.setitem(SHAPES, "tiny", tiny_shape("qwen3_moe", int8=int8))
        random_checkpoint.write_checkpoint("tiny", "full", tmp_path / str(int8))
        opened[int8] = open_tensors(tmp_path / str(int8), ())
    assert opened[True].shapes == opened[False].shapes
    expert, router = (f"model.layers.1.mlp.{name}.weight" for name in ("experts.3.up_proj", "gate"))
    assert opened[True].int8(expert) and not opened[True].int8(router)
    spread = [float(opened[int8].get(expert).float().std()) for int8 in (False, True)]
    assert spread[1] == pytest.approx(spread[0], rel=1)
    assert Work.of(tmp_path / "True") == Work.of(tmp_path / "False")


def test_random_tensors_are_repeatable_and_differ_by_name() -> None:
    first, second = (
        random_checkpoint.tensor_of(name, (8, 16)) for name in ("a.weight", "b.weight")
    )
    assert first.equal(random_checkpoint.tensor_of("a.weight", (8, 16)))
    assert not first.equal(second)
    assert random_checkpoint.tensor_of("model.norm.weight", (4,)).tolist() == [1.0] * 4


def measured(**rates: float) -> Measurements:
    """Speeds by label_measure; `memory` is in bytes."""
    found = Measurements()
    labels = {
        "own": families.OURS,
        "llama": families.REFERENCE,
        "peer": families.LLAMA_CPP,
        "before": families.BEFORE,
    }
    for name, rate in rates.items():
        label, _, what = name.partition("_")
        if label == "memory":
            found.add(families.MEMORY, "bandwidth", rate)
        else:
            found.add(labels[label], what, {"tps": rate, "tokens": 64})
    return found


def test_families_are_compared_by_the_work_a_token_costs() -> None:
    speeds = measured(
        own_decode=50.0, llama_decode=100.0, peer_decode=25.0, own_prefill=300.0,
        llama_prefill=400.0, peer_prefill=100.0, memory=400e9,
    )  # fmt: skip
    apart = {"together": {"ratio": 6.0, "many": 300.0}, "build": "AVX2"}
    result = families.compare(speeds, apart, Work(4e9, 2e9), Work(2e9, 1e9))
    assert (result["decode_as_llama"], result["prefill_as_llama"]) == (1.0, 1.5)
    assert (result["decode_over_llama_cpp"], result["prefill_over_llama_cpp"]) == (2.0, 3.0)
    assert (result["memory_share"], result["together"]) == (0.5, 6.0)
    assert result["llama_cpp_build"] == "AVX2"
    assert set(families.verdicts("qwen3", result).values()) == {"met"}


def test_what_a_peer_cannot_open_is_not_compared() -> None:
    speeds = measured(own_decode=50.0, own_prefill=300.0)
    speeds.fail(families.LLAMA_CPP, MeasurementFailed("unknown architecture"))
    result = families.compare(speeds, {}, Work(4e9, 2e9), Work(2e9, 1e9))
    assert result["decode_over_llama_cpp"] is None
    assert result["not_measured"] == {families.LLAMA_CPP: "unknown architecture"}
    assert families.verdicts("lfm2", result) == {
        "decode_over_llama_cpp": "not measured",
        "prefill_over_llama_cpp": "not measured",
    }


def test_older_engine_is_measured_in_the_same_turns() -> None:
    speeds = measured(own_decode=60.0, own_prefill=500.0, before_decode=20.0, before_prefill=250.0)
    result = families.compare(speeds, {}, Work(4e9, 2e9), Work(2e9, 1e9))
    assert (result["decode_faster"], result["prefill_faster"], result["faster"]) == (3.0, 2.0, 2.0)
    assert families.verdicts("gpt-neox", result)["faster"] == "missed by 20%"
    assert "faster" not in families.verdicts("qwen3", result)


def test_older_engine_keeps_its_own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = families.Bench(tmp_path, "small", 1, None, None, before=tmp_path / "old")
    monkeypatch.setitem(SHAPES, "llama", tiny_shape("gemma3_text"))
    random_checkpoint.write_checkpoint("llama", "full", bench.folder("llama"))
    contenders = {one.label: one for one in bench.contenders("llama")}
    assert set(contenders) == {families.MEMORY, families.REFERENCE, families.OURS, families.BEFORE}
    before = contenders[families.BEFORE]
    assert before.command[:2] == ("env", f"PYTHONPATH={tmp_path / 'old'}")
    assert f"XDG_CACHE_HOME={tmp_path / 'kept' / 'cache'}-before" in before.command
    assert before.memory > 300 * 32


def test_files_of_a_shape_are_removed_with_their_copies(tmp_path: Path) -> None:
    bench = families.Bench(tmp_path, "full", 1, None, None)
    kept = tmp_path / "kept"
    copies = [
        kept / cache / "llmchat" / "prepared" / f"tmp--work--{name}-full-0123abcd"
        for cache in ("cache", "cache-before")
        for name in ("qwen3", "qwen3.5")
    ]
    for folder in (bench.folder("qwen3"), bench.folder("qwen3.5"), *copies):
        folder.mkdir(parents=True)
    families._remove(bench, "qwen3")
    assert not bench.folder("qwen3").exists() and bench.folder("qwen3.5").exists()
    assert [folder.exists() for folder in copies] == [False, True, False, True]


def test_table_shows_the_stored_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "RESULTS", tmp_path)
    speeds = measured(
        own_decode=26.0, own_prefill=1234.0, peer_prefill=617.0, memory=104e9, before_decode=13.0
    )
    result = families.compare(speeds, {}, Work(2e9, 2e9), Work(2e9, 1e9))
    families.save("full", "gpt-neox", result)
    families.save("full", "qwen3", result)
    table = families.markdown("full").splitlines()
    assert table[0] == "| | decode | of memory | / before | prefill | / llama.cpp |"
    assert table[2].startswith("| Qwen3 1.7B")
    assert table[3] == "| Pythia 1.4B | 26.0 | 50 % | 2.00 × | 1,234 | 2.00 × |"
    assert "small" not in families.stored()
