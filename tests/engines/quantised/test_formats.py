"""Weights of quantised safetensors files: their values are those of the format's own formula."""

from pathlib import Path

import pytest
import torch
from support.quantised_files import (
    FORMATS,
    Written,
    compressed,
    gptq,
    pack,
    write_folder,
    write_module,
)
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import unpack
from llmchat.engines.transformers.quantised.packed import kind_of
from llmchat.engines.transformers.tensors import Tensors
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import IntegrityError

NAME = "model.layers.0.mlp.up_proj.weight"


def a_weight(out: int = 64, in_: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))


def opened(folder: Path, written: Written, table: dict[str, object]) -> Tensors:
    return open_tensors(write_module(folder, written, table), [])


@pytest.mark.parametrize("name", FORMATS)
def test_the_values_are_those_of_the_format(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    written = form.write(a_weight())
    tensors = opened(tmp_path, written, form.table)
    assert tensors.shapes == {NAME: (64, 96)}
    values = tensors.get(NAME)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.to(written.values.dtype), written.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_scales_give_the_same_values(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    written = form.write(a_weight(seed=1))
    tensors = opened(tmp_path, written, form.table)
    grouped = tensors.grouped(NAME)
    if any(word in name for word in ("fp8", "nf4", "fp4")):
        assert grouped is None
        return
    assert grouped is not None and grouped.shape == (64, 96)
    assert int(grouped.codes.max()) < 2**grouped.bits
    assert torch.equal(grouped.dequantised(), tensors.get(NAME))
    assert kind_of(grouped) is not None, "the compiled step has a kernel for it"
    assert tensors.stored_size(NAME) == sum(one.nbytes for one in written.tensors.values())


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_unpacking_is_the_inverse_of_packing(bits: int, count: int) -> None:
    codes = torch.randint(0, 2**bits, (3, count), generator=torch.Generator().manual_seed(count))
    assert torch.equal(unpack(pack(codes, bits), bits, count).long(), codes)


def test_three_bits_are_packed_as_auto_gptq_packs_them() -> None:
    """Ten codes and two bits, a bit, ten codes and a bit, two bits and ten codes."""
    codes = [(5 * number + 3) % 8 for number in range(32)]
    first = sum(codes[i] << 3 * i for i in range(10)) | (codes[10] & 3) << 30
    second = (
        codes[10] >> 2 | sum(codes[11 + i] << 3 * i + 1 for i in range(10)) | (codes[21] & 1) << 31
    )
    third = codes[21] >> 1 | sum(codes[22 + i] << 3 * i + 2 for i in range(10))
    words = torch.tensor([[first, second, third]], dtype=torch.uint32).view(torch.int32)
    assert unpack(words, 3, 32).tolist() == [codes]


def test_a_gptq_zero_point_of_0_wraps_in_version_1(tmp_path: Path) -> None:
    """It is stored less 1, without a sign: as 15."""
    form = gptq(4, 32)
    written = form.write(a_weight().abs())
    assert int((written.tensors["qzeros"] & 15).max()) == 15
    tensors = opened(tmp_path, written, form.table)
    torch.testing.assert_close(tensors.get(NAME), written.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout, name", [("gptq", "gptq 4-bit"), ("awq", "awq gemm")])
def test_autoround_writes_the_layouts_of_others(layout: str, name: str, tmp_path: Path) -> None:
    written = FORMATS[name].write(a_weight())
    table = {
        "quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": True,
        "packing_format": f"auto_round:auto_{layout}",
    }  # fmt: skip
    values = opened(tmp_path, written, table).get(NAME)
    torch.testing.assert_close(values, written.values, rtol=1e-6, atol=0)


def test_a_module_may_have_groups_of_its_own(tmp_path: Path) -> None:
    """`dynamic` of GPTQModel names modules with other bits and groups than the rest."""
    written = gptq(8, 16).write(a_weight())
    table = gptq(4, 32).table | {"dynamic": {"+:.*up_proj.*": {"bits": 8, "group_size": 16}}}
    values = opened(tmp_path, written, table).get(NAME)
    torch.testing.assert_close(values, written.values, rtol=1e-6, atol=0)


def test_groups_of_different_sizes_are_dequantised(tmp_path: Path) -> None:
    """No order of the inputs makes groups of them that the compiled step has."""
    form = gptq(4, 32)
    written = form.write(a_weight())
    groups = torch.arange(96) // 32
    groups[0] = 1
    codes = unpack(written.tensors["qweight"].T, 4, 96).float()
    zeros = unpack(written.tensors["qzeros"], 4, 64).T.float() + 1
    expected = written.tensors["scales"].T.float()[:, groups] * (codes - zeros[:, groups])
    changed = written._replace(tensors=written.tensors | {"g_idx": groups.int()})
    tensors = opened(tmp_path, changed, form.table)
    assert tensors.grouped(NAME) is None
    torch.testing.assert_close(tensors.get(NAME), expected, rtol=1e-6, atol=0)


def test_older_files_keep_zero_points_one_by_one(tmp_path: Path) -> None:
    """compressed-tensors packs them today."""
    form = FORMATS["ct int4 groups, asymmetric"]
    written = form.write(a_weight())
    packed = written.tensors["weight_zero_point"]
    plain = (unpack(packed.T, 4, 64).T.to(torch.int16) - 8).to(torch.int8)
    changed = written._replace(tensors=written.tensors | {"weight_zero_point": plain})
    torch.testing.assert_close(
        opened(tmp_path, changed, form.table).get(NAME), written.values, rtol=1e-6, atol=0
    )


def test_a_group_order_of_compressed_tensors_counts(tmp_path: Path) -> None:
    """A group of inputs that are not neighbours (`actorder`), and -1 for an order never set."""
    form = FORMATS["ct int4 groups"]
    written = form.write(a_weight())
    groups = (torch.arange(96) // 32)[
        torch.randperm(96, generator=torch.Generator().manual_seed(2))
    ]
    codes = unpack(written.tensors["weight_packed"], 4, 96).float() - 8
    expected = written.tensors["weight_scale"][:, groups] * codes
    for order, values in ((groups, expected), (torch.full((96,), -1), written.values)):
        changed = written._replace(tensors=written.tensors | {"weight_g_idx": order.int()})
        tensors = opened(tmp_path, changed, form.table)
        torch.testing.assert_close(tensors.get(NAME), values, rtol=1e-6, atol=0)
        assert tensors.grouped(NAME) is not None


def test_each_module_follows_the_group_that_names_it(tmp_path: Path) -> None:
    """A name before a pattern, and both before a class; the first group that matches counts."""
    four, eight = FORMATS["ct int4 groups"], FORMATS["ct int8 packed"]
    names = {"model.layers.0.mlp.up_proj": four, "model.layers.1.mlp.down_proj": eight}
    tensors, values = {}, {}
    for seed, (module, form) in enumerate(names.items()):
        written = form.write(a_weight(seed=seed))
        tensors |= {f"{module}.{part}": one for part, one in written.tensors.items()}
        values[f"{module}.weight"] = written.values
    groups = {
        "group_0": {"targets": ["Linear"], "weights": _arguments(four)},
        "group_1": {"targets": ["re:.*down_proj$"], "weights": _arguments(eight)},
    }
    table = four.table | {"format": "mixed-precision", "config_groups": groups}
    config = {"model_type": "llama", "quantization_config": table}
    opened = open_tensors(write_folder(tmp_path, tensors, config), [])
    for name, expected in values.items():
        torch.testing.assert_close(opened.get(name), expected, rtol=1e-6, atol=0)


def _arguments(form: object) -> object:
    return form.table["config_groups"]["group_0"]["weights"]  # type: ignore[attr-defined]


def test_a_stack_of_experts_in_fp8_is_scaled_expert_by_expert(tmp_path: Path) -> None:
    form = FORMATS["fp8 blocks"]
    written = [form.write(a_weight(seed=seed)) for seed in range(3)]
    tensors = {
        "model.layers.0.mlp.experts.down_proj": torch.stack(
            [one.tensors["weight"].view(torch.uint8) for one in written]
        ).view(torch.float8_e4m3fn),
        "model.layers.0.mlp.experts.down_proj_scale_inv": torch.stack(
            [one.tensors["weight_scale_inv"] for one in written]
        ),
    }
    config = {"model_type": "qwen3_moe", "quantization_config": form.table}
    opened = open_tensors(write_folder(tmp_path, tensors, config), [])
    values = opened.get("model.layers.0.mlp.experts.down_proj")
    assert torch.equal(values, torch.stack([one.values for one in written]))


def test_scales_of_activations_and_caches_are_left_out(tmp_path: Path) -> None:
    form = FORMATS["fp8 tensor"]
    written = form.write(a_weight())
    more = {"activation_scale": torch.ones(()), "k_scale": torch.ones(())}
    changed = written._replace(tensors=written.tensors | more)
    assert opened(tmp_path, changed, form.table).shapes == {NAME: (64, 96)}


def test_mxfp4_of_compressed_tensors(tmp_path: Path) -> None:
    arguments = {
        "num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32,
    }  # fmt: skip
    form = compressed("mxfp4-pack-quantized", arguments)
    codes = torch.randint(0, 256, (64, 48), dtype=torch.uint8)
    scales = torch.randint(118, 132, (64, 3), dtype=torch.uint8)
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    table = torch.cat((table, -table))
    pairs = torch.stack((table[(codes & 15).long()], table[(codes >> 4).long()]), 2).flatten(1)
    values = pairs * (2.0 ** (scales.float() - 127)).repeat_interleave(32, 1)
    written = Written({"weight_packed": codes, "weight_scale": scales}, values)
    tensors = opened(tmp_path, written, form.table)
    grouped = tensors.grouped(NAME)
    assert torch.equal(tensors.get(NAME), values)
    assert grouped is not None and torch.equal(grouped.dequantised(), values)
    scales[0, 0] = 255
    with pytest.raises(IntegrityError, match="hold NaN"):
        opened(tmp_path / "nan", written, form.table).get(NAME)
