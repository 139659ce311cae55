"""GGUF files of hybrids, of latent attention and of models that are only read: tensors that lie in
other forms than in a checkpoint.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from support.checkpoints import save_tiny
from support.gguf_cases import GGUF_CASES
from support.gguf_headers import RWKV7, T5
from support.tiny_families import CASES

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.check import bind
from llmchat.engines.transformers.families.differences import differences
from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.gguf_export import Export
from llmchat.engines.transformers.quantised import gguf_writing
from llmchat.engines.transformers.quantised.packed import unpacked
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import IntegrityError
from llmchat.gguf_file import read_header
from llmchat.gguf_file.config import config_of
from llmchat.hub.gguf_folder import write_folder

Arrays = dict[str, np.ndarray]


def made(file: Path) -> Path:
    """The folder that a reader makes of a file."""
    folder = file.parent / f"made-{file.stem}"
    folder.mkdir()
    assert write_folder([file], folder)
    return folder


def exported(base: Path, kind: str = "F32") -> Path:
    Export(base, (), 1.0, kind, {"general.name": "tiny"}).write(base.parent / f"{kind}.gguf")
    return base.parent / f"{kind}.gguf"


def rewritten(file: Path, change: Callable[[Arrays], Arrays], **facts: Any) -> Path:
    """The same file with other tensors, and with other facts of its architecture."""
    reader, target = gguf.GGUFReader(file), file.parent / "rewritten.gguf"
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(target), arch)
    values = {f"{arch}.{name.replace('__', '.')}": value for name, value in facts.items()}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture" and name not in values:
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], *kinds[1:2])
    for name, value in values.items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for name, array in change({one.name: one.data.copy() for one in reader.tensors}).items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def assert_same(base: Path, folder: Path) -> None:
    theirs, ours = (read_json(one / "config.json") for one in (base, folder))
    plan = plan_of(theirs)
    assert plan and not [*differences(plan_of(ours), plan)]
    expected, found = viewed(theirs, open_tensors(base, ())), open_tensors(folder, ())
    names = sorted(tensor_names(plan) & expected.shapes.keys())
    assert len(names) >= 20
    for name in names:
        values = expected.get(name).float()
        assert torch.allclose(found.get(name).view(values.shape), values, rtol=0, atol=1e-6), name


def test_heads_in_another_order_stay_in_few_bits(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES["qwen3.5"].config())
    ours = open_tensors(made(exported(base, "Q8_0")), ())
    theirs = open_tensors(base, ())
    for part in ("out_proj", "in_proj_qkv", "in_proj_z"):
        name = f"model.layers.0.linear_attn.{part}.weight"
        weight, packed = ours.grouped(name), ours.packed(name)
        assert weight is not None and packed is not None
        assert (weight.order is not None) == (part == "out_proj")
        assert torch.equal(weight.dequantised(), ours.get(name))
        assert torch.equal(unpacked(packed).dequantised(), ours.get(name))
        assert torch.allclose(ours.get(name), theirs.get(name).float(), atol=0.02)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("granite-moe-hybrid", ("ssm_conv1d.weight", "ssm_norm.weight", "ssm_a", "ssm_d")),
        ("kimi-linear", ("ssm_conv1d_q.weight", "ssm_a")),
        ("gemma3n", ("altup_predict_coef.weight",)),
    ],
)
def test_what_llama_cpp_reads_in_32_bits_has_32(
    name: str, whole: tuple[str, ...], tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    tensors = read_header(exported(base, "Q8_0")).tensors
    assert {tensors[f"blk.0.{one}"].type.name for one in whole} == {"F32"}
    assert {tensors["token_embd.weight"].type.name} == {"Q8_0"}


def latent_in_one(arrays: Arrays) -> Arrays:
    """Keys and values of latent numbers as in files of before 2025-04."""
    found: Arrays = {}
    for name, array in arrays.items():
        if name.endswith("attn_k_b.weight"):
            values = arrays[name.replace("attn_k_b", "attn_v_b")]
            both = np.concatenate([array.swapaxes(1, 2), values], 1)
            found[name.replace("attn_k_b", "attn_kv_b")] = both.reshape(-1, both.shape[-1])
        elif not name.endswith("attn_v_b.weight"):
            found[name] = array
    return found


def test_latent_numbers_are_read_from_old_files(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", GGUF_CASES["deepseek-v3: groups, yarn"].config())
    assert_same(base, made(rewritten(exported(base), latent_in_one)))


def gates_and_ups_in_one(arrays: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in arrays.items():
        if name.endswith("ffn_gate_exps.weight"):
            up = arrays[name.replace("gate", "up")]
            found[name.replace("gate", "gate_up")] = np.concatenate([array, up], 1)
        elif not name.endswith("ffn_up_exps.weight"):
            found[name] = array
    return found


@pytest.mark.parametrize("name", ["qwen3-moe", "glm4-moe-lite"])
def test_gates_and_ups_of_experts_can_be_one_tensor(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", GGUF_CASES[name].config())
    assert_same(base, made(rewritten(exported(base), gates_and_ups_in_one)))


def test_a_stack_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", GGUF_CASES["qwen3-moe"].config())

    def cut(arrays: Arrays) -> Arrays:
        joined = gates_and_ups_in_one(arrays)
        return {name: one[:, :9] if "gate_up" in name else one for name, one in joined.items()}

    folder = made(rewritten(exported(base), cut))
    with pytest.raises(IntegrityError, match=r"ffn_gate_up_exps\.weight` does not fit the model"):
        open_tensors(folder, ())


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("nemotron-h: experts", {"moe_latent_size": 32}),
        ("deepseek-v2: low rank", {"attention__temperature_scale": 0.1}),
        ("hunyuan-moe", {"expert_shared_feed_forward_length": 32}),
        ("llama4: chunks of 8192", {"attention__sliding_window": 0}),
    ],
)
def test_a_variant_without_a_plan_is_left_to_llama_cpp(
    name: str, fact: dict[str, Any], tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", GGUF_CASES[name].config())
    file = exported(base)
    assert config_of(read_header(file))
    assert config_of(read_header(rewritten(file, dict, **fact))) is None


@pytest.mark.parametrize(("name", "facts"), [("t5", T5), ("rwkv7", RWKV7)])
def test_an_architecture_that_is_only_read(
    name: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    config = read_json(base / "config.json")
    tensors = viewed(config, open_tensors(base, ()))
    plan = plan_of(config)
    assert plan
    plan = bind(plan, tensors.shapes)
    targets = gguf_writing.targets_of(plan, tensors, name, config, "F32")
    rows = [f"<{number}>" for number in range(320)]
    tokens = {"model": "none", "tokens": rows, "token_type": [1] * 320, "eos_token_id": 2}
    file = tmp_path / "a.gguf"
    full = {
        "general.architecture": name,
        **{f"{name}.{key}": value for key, value in facts.items()},
        **{f"tokenizer.ggml.{key}": value for key, value in tokens.items()},
    }
    gguf_writing.write(file, full, targets, {}, tensors)
    (tmp_path / "made").mkdir()
    found = config_of(read_header(file))
    assert found and not [*differences(bind(plan_of(found), tensors.shapes), plan)]  # type: ignore[arg-type]
    names = {target.name for target in targets}
    assert names >= NAMES[name]


# Some of the names that llama.cpp requires.
NAMES = {
    "t5": {
        "enc.blk.1.attn_q.weight", "dec.blk.0.cross_attn_o.weight", "dec.blk.0.attn_rel_b.weight",
        "enc.output_norm.weight", "dec.output_norm.weight", "dec.blk.1.ffn_gate.weight",
    },
    "rwkv7": {
        "blk.0.time_mix_lerp_fused.weight", "blk.1.time_mix_v1.weight", "blk.0.time_mix_w0.weight",
        "blk.2.channel_mix_lerp_k.weight", "blk.1.attn_norm_2.bias", "token_embd_norm.weight",
    },
}  # fmt: skip
