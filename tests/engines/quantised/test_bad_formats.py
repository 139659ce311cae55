"""Damaged and unknown quantised checkpoints: each is refused in one line."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fuzz_mutations import of_json
from support.quantised_files import FORMATS, gptq, write_folder, write_module
from torch import Tensor

from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import IntegrityError, LlmchatError, Mismatch

NAME = "model.layers.0.mlp.up_proj.weight"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def without(part: str) -> Change:
    return lambda tensors: {name: one for name, one in tensors.items() if name != part}


def with_(part: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors | {part: change(tensors[part])}


def with_nan(values: Tensor) -> Tensor:
    values = values.clone()
    values.flatten()[0] = float("nan")
    return values


def shorter(values: Tensor) -> Tensor:
    return values[:-1]


BAD: dict[str, tuple[str, Change, str]] = {
    "no zero points": ("gptq 4-bit", without("qzeros"), "has no `qzeros` in the files"),
    "no scales": ("awq gemm", without("scales"), "has no `scales` in the files"),
    "NaN scales": ("gptq 4-bit", with_("scales", with_nan), "hold NaN or infinity"),
    "NaN scales of AWQ": ("awq gemm", with_("scales", with_nan), "hold NaN or infinity"),
    "NaN scales of ct": (
        "ct int4 groups", with_("weight_scale", with_nan), "hold NaN or infinity",
    ),
    "NaN scales of fp8": ("fp8 blocks", with_("weight_scale_inv", with_nan), "hold NaN"),
    "a group outside": ("gptq 4-bit", with_("g_idx", lambda groups: groups + 1), "outside 0 to 2"),
    "a negative group": (
        "gptq 4-bit", with_("g_idx", lambda groups: groups - 1), "outside 0 to 2",
    ),
    "short groups": ("gptq 4-bit", with_("g_idx", shorter), "95 of I32 instead of 96"),
    "fewer groups": ("gptq 4-bit", with_("scales", shorter), "2 x 64 of F16 instead of 3 x 64"),
    "fewer codes": ("gptq 4-bit", with_("qweight", shorter), r"instead of \d+"),
    "codes of another type": (
        "gptq 4-bit", with_("qweight", lambda codes: codes.long()), "instead of a matrix of I32",
    ),
    "fewer codes of AWQ": ("awq gemm", with_("qweight", lambda codes: codes[:, :-1]), "64 outputs"),
    "fewer blocks": ("fp8 blocks", with_("weight_scale_inv", shorter), "1 x 2 of F32 instead of"),
    "no scale of fp8": ("fp8 blocks", without("weight_scale_inv"), "has no scale"),
    "no zero points of ct": (
        "ct int4 groups, asymmetric", without("weight_zero_point"), "has no zero points",
    ),
    "fewer zero points of ct": (
        "ct int4 groups, asymmetric", with_("weight_zero_point", shorter), "7 x 3 of I32",
    ),
    "a wrong shape of ct": (
        "ct int4 groups", with_("weight_shape", lambda shape: shape + 40), "instead of codes of",
    ),
    "codes of 5 bits in int4": (
        "ct naive int4", with_("weight", lambda codes: codes + 20), "not of 4 bits",
    ),
    "fewer maxima": ("nf4", with_("weight.absmax", shorter), "maxima of 6144 weights"),
    "no map": ("nf4", without("weight.quant_map"), "has no `quant_map`"),
    "a short map": ("nf4", with_("weight.quant_map", shorter), "15 values instead of 16"),
    "no nested maxima": ("nf4 nested", without("weight.nested_absmax"), "no `nested_absmax`"),
    "NaN maxima": ("nf4", with_("weight.absmax", with_nan), "hold NaN or infinity"),
    "no codes": ("nf4", without("weight"), "has no codes"),
    "a state that is no JSON": (
        "nf4", with_("weight.quant_state.bitsandbytes__nf4", lambda text: text[1:]), "not valid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_damaged_tensors_are_one_line(name: str, tmp_path: Path) -> None:
    form, change, expected = BAD[name]
    written = FORMATS[form].write(torch.randn(64, 96))
    changed = written._replace(tensors=change(written.tensors))
    folder = write_module(tmp_path, changed, FORMATS[form].table)
    with pytest.raises(IntegrityError, match=expected) as caught:
        open_tensors(folder, []).get(NAME)
    assert "\n" not in caught.value.message and len(caught.value.message) < 300


@pytest.mark.parametrize(
    "table, expected",
    [
        ({"quant_method": "exl2"}, "are EXL2, which llmchat does not run"),
        ({"quant_method": "exl3"}, "are EXL3, which"),
        ({"quant_method": "aqlm"}, "are AQLM, which"),
        ({"quant_method": "hqq"}, "are HQQ, which"),
        ({"quant_method": "quip"}, "are QuIP#, which"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "are NVFP4, which"),
        ({"quant_method": "nvfp4"}, "are NVFP4, which"),
        ({"quant_method": "a new one"}, "are a new one, which"),
        ({"group_size": 64, "bits": 4}, "are MLX, which"),
        (
            {"quant_method": "auto-round", "packing_format": "auto_round:gptqmodel"},
            "AutoRound in the layout `auto_round:gptqmodel`",
        ),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "GPTQ in the layout `marlin`"),
        ({"quant_method": "awq", "version": "gemv_fast"}, "AWQ in the layout `gemv_fast`"),
        ({"quant_method": "awq", "bits": 3}, "AWQ of 3 bits"),
        (
            {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"a": 1}}},
            "rotated weights",
        ),
        (
            {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24"}},
            "sparse weights",
        ),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_with_what_to_pull_instead(
    table: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    config = {"model_type": "llama", "quantization_config": table}
    folder = write_folder(tmp_path, {"model.embed_tokens.weight": torch.zeros(2, 2)}, config)
    with pytest.raises(Mismatch, match=expected) as caught:
        open_tensors(folder, [])
    assert "GGUF" in caught.value.hint or "4 bits" in caught.value.message


@pytest.mark.parametrize(
    "tensor, expected",
    [
        ("q_invperm", "EXL2"), ("trellis", "EXL3"), ("W_q", "HQQ"), ("codebooks", "AQLM"),
        ("Qidxs", "QuIP#"), ("qweight", "has no quantization_config"),
    ],
)  # fmt: skip
def test_tensors_tell_the_kind_where_config_json_does_not(
    tensor: str, expected: str, tmp_path: Path
) -> None:
    name = f"model.layers.0.mlp.up_proj.{tensor}"
    folder = write_folder(tmp_path, {name: torch.zeros(2)}, {"model_type": "llama"})
    with pytest.raises(Mismatch, match=expected):
        open_tensors(folder, [])


def test_an_older_checkpoint_has_its_table_in_a_file_of_its_own(tmp_path: Path) -> None:
    form = gptq(4, 32)
    written = form.write(torch.randn(64, 96))
    folder = write_module(tmp_path, written, form.table)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    table = {name: value for name, value in form.table.items() if name != "quant_method"}
    (folder / "quantize_config.json").write_text(json.dumps(table))
    values = open_tensors(folder, []).get(NAME)
    torch.testing.assert_close(values, written.values, rtol=1e-6, atol=0)


def test_nvfp4_of_compressed_tensors_is_refused(tmp_path: Path) -> None:
    form = FORMATS["ct int4 groups"]
    tensors = {
        f"model.layers.0.mlp.up_proj.{part}": one
        for part, one in {
            "weight_packed": torch.zeros(8, 32, dtype=torch.uint8),
            "weight_scale": torch.ones(8, 4).to(torch.float8_e4m3fn),
            "weight_global_scale": torch.ones(1),
        }.items()
    }
    config = {"model_type": "llama", "quantization_config": form.table}
    with pytest.raises(Mismatch, match="NVFP4"):
        open_tensors(write_folder(tmp_path, tensors, config), [])


def test_a_pattern_that_is_not_supported_is_refused(tmp_path: Path) -> None:
    """Patterns are matched in linear time, which look-ahead does not allow."""
    form = FORMATS["ct int4 groups"]
    group = form.table["config_groups"]["group_0"]
    groups = {"a": group | {"targets": ["re:(?!x)y"]}, "b": group}
    folder = write_module(
        tmp_path, form.write(torch.randn(64, 96)), form.table | {"config_groups": groups}
    )
    with pytest.raises(Mismatch, match="the pattern re:"):
        open_tensors(folder, [])


@pytest.mark.parametrize("name", ["gptq 4-bit", "awq gemm", "ct int4 groups", "fp8 blocks", "nf4"])
def test_hostile_configs_and_headers_are_one_line(name: str, tmp_path: Path) -> None:
    """Values and shapes changed at random: an error of one line, or weights of the stated shape."""
    form = FORMATS[name]
    written = form.write(torch.randn(64, 96))
    folder = write_module(tmp_path, written, form.table)
    seeds = random.Random(name)
    config = json.dumps(json.loads((folder / "config.json").read_text())["quantization_config"])
    for _ in range(12):
        tensors = dict(written.tensors)
        if seeds.random() < 0.5:
            part = seeds.choice(list(tensors))
            tensors[part] = _reshaped(seeds, tensors[part])
        changed = {f"model.layers.0.mlp.up_proj.{part}": one for part, one in tensors.items()}
        write_folder(folder, changed, {})
        (folder / "config.json").write_bytes(_with_table(of_json(seeds, config.encode())))
        _refused_or_read(folder)


def _with_table(table: bytes) -> bytes:
    return b'{"model_type": "llama", "quantization_config": ' + table + b"}"


def _reshaped(seeds: random.Random, tensor: Tensor) -> Tensor:
    flat = tensor.flatten()
    return seeds.choice(
        [
            flat,
            flat[: len(flat) // 2],
            flat[:0],
            tensor[None],
            tensor[:1],
            flat[:1].view(torch.uint8),
        ]
    )


def _refused_or_read(folder: Path) -> None:
    try:
        tensors = open_tensors(folder, [])
        for name, shape in tensors.shapes.items():
            values = tensors.get(name)
            assert tuple(values.shape) == shape
            grouped = tensors.grouped(name)
            assert grouped is None or grouped.shape == shape
    except LlmchatError as error:
        assert "\n" not in error.message and len(error.message) < 400
