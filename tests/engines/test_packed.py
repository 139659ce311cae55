"""The layout of grouped weights for the compiled step, as packed.py describes it."""

import re
from dataclasses import fields, replace

import pytest
import torch
from support.grouped_weights import FORMATS, grouped
from torch import Tensor

from llmchat.engines.transformers.quantised import packing
from llmchat.engines.transformers.quantised.packed import (
    kind_named,
    kind_of,
    pack,
    packed_bytes,
    unpacked,
)
from llmchat.engines.transformers.quantised.packing import pack_by_parts
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import IntegrityError

SHAPES = [(16, 256), (33, 512), (7, 40), (48, 1312), (1, 2000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_packed_weight_unpacks_to_the_same(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = FORMATS[name][0](shape)
    packed = pack(weight)
    assert packed.data.numel() == packed_bytes(packed.kind, packed.shape)
    found = unpacked(packed)
    assert torch.equal(found.dequantised(), weight.dequantised())
    for field in fields(GroupedWeight):
        before, after = getattr(weight, field.name), getattr(found, field.name)
        if isinstance(before, Tensor):
            assert torch.equal(before, after), field.name


@pytest.mark.parametrize("shape", [*SHAPES, (200, 320)])
@pytest.mark.parametrize("name", FORMATS)
def test_parts_have_the_bytes_of_the_whole(
    name: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_PART", 48 * 320)
    torch.manual_seed(1)
    whole = FORMATS[name][0](shape)

    def rows_of(part: slice) -> GroupedWeight:
        names = ("codes", "scale", "minimum", "zeros", "scales", "minima")
        found = {name: getattr(whole, name) for name in names}
        return replace(whole, **{name: one[part] for name, one in found.items() if one is not None})

    expected, packed = pack(whole), pack_by_parts(rows_of, shape, name)
    assert packed is not None and (packed.kind, packed.shape) == (expected.kind, shape)
    assert torch.equal(packed.data, expected.data)


@pytest.mark.parametrize("name", FORMATS)
def test_packed_weight_is_at_most_a_tenth_larger_than_its_file(name: str) -> None:
    maker, bits = FORMATS[name]
    assert pack(maker((64, 4096))).data.numel() * 8 <= 1.1 * bits * 64 * 4096


def test_order_of_columns_is_kept() -> None:
    weight = grouped((16, 64), 4, 32, 32, order=True)
    found = unpacked(pack(weight))
    assert torch.equal(found.dequantised(), weight.dequantised())


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 31), (17, 40), (31, 600)])
def test_code_of_4_bits_lies_where_the_documentation_says(row: int, column: int) -> None:
    weight = grouped((32, 640), 4, 32, 32, zero=8)
    piece, rest = divmod(column, 512)
    vector, number = divmod(rest % 32, 4)[0], column % 4
    # Scales of a piece of 512 columns: 16 groups of 16 rows of 2 bytes.
    block = packed_bytes("w4_g32_b32_f16_zero8", (16, 640))
    start = block * (row // 16) + piece * 16 * (32 + 256) + (16 if not piece else 4) * 32
    byte = int(
        pack(weight).data[start + rest // 32 * 256 + vector // 2 * 64 + row % 16 * 4 + number]
    )
    assert (byte >> 4 if vector % 2 else byte & 15) == int(weight.codes[row, column])


@pytest.mark.parametrize(
    "weight",
    [
        grouped((16, 64), 7, 32, 32),
        grouped((16, 64), 4, 24, 24),
        grouped((16, 128), 4, 64, 64, scales=(0, 64)),
        grouped((16, 64), 5, 32, 32, table=tuple(range(32))),
    ],
    ids=["7 bits", "groups of 24", "scales of groups of 64", "a table of 32"],
)
def test_weight_without_a_layout_has_no_kind(weight: GroupedWeight) -> None:
    assert kind_of(weight) is None
    with pytest.raises(ValueError, match="no layout"):
        pack(weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["scale", "minimum"])
def test_scale_that_is_not_finite_is_refused(field: str, value: float) -> None:
    weight = grouped((16, 64), 4, 32, 32, minimum=True)
    numbers = getattr(weight, field).clone()
    numbers[3, 1] = value
    with pytest.raises(IntegrityError, match="q_proj has a scale that is infinite or not a number"):
        pack(replace(weight, **{field: numbers}), "q_proj")


@pytest.mark.parametrize(
    "name",
    [
        "", "int8", "w7_g32_b32_f16", "w4_g8_b32_f16", "w4_g32_b0_f16", "w4_g32_b48_f16",
        "w4_g32_b32_f8", "w4_g32_b32_f16_u4", "w4_g32_b32_f16_zero300", "w4_g32_b32_f16_zero0",
        "w8_g32_b32_f16_table", "w4_g32_b32_f16_zeros_table", "w4_g32_b32_f16\n", "w٤_g32_b32_f16",
    ],
)  # fmt: skip
def test_unknown_layout_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=re.escape(f"`{name}` is not a layout")):
        kind_named(name)


@pytest.mark.parametrize("name", FORMATS)
def test_name_of_a_layout_says_all_of_it(name: str) -> None:
    found = kind_of(FORMATS[name][0]((16, 512)))
    assert found is not None and kind_named(found).name == found
