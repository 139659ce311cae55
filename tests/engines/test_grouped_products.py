"""Products with weights in groups of few bits, and the same to the bit for any rows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compiled_models import PATHS, error, needs_compiler
from support.grouped_weights import FORMATS, grouped
from torch import Tensor

from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.grouped import rows_of
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.quantised.packed import pack
from llmchat.errors import IntegrityError

pytestmark = needs_compiler


def in_groups(x: Tensor) -> Tensor:
    """Activations as they are quantised: 127 steps to the largest of each group of 32."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    peak = padded.abs().amax(dim=2, keepdim=True)
    q = (padded * torch.where(peak > 0, 127 / peak, 0)).round().double()
    return (q * (peak / 127).double()).flatten(1)[:, : x.shape[1]]


@pytest.mark.parametrize("shape", [(33, 1312), (7, 40)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_products_are_those_of_the_dequantised_weight(
    compiled: Kernels, name: str, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    weight = FORMATS[name][0](shape)
    x = torch.randn(13, shape[1])
    numbers = weight.dequantised().double().T
    size = x.double().abs() @ numbers.abs() + 1e-9
    for rows in (1, 6, 13):
        got = compiled.multiply([pack(weight)], x[:rows].contiguous())[0]
        assert ((got - in_groups(x[:rows]) @ numbers).abs() <= 4e-6 * size[:rows]).all()


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q2_K", "Q5_1", "Q3_K", "Q8_0", "IQ4_NL", "AWQ"])
def test_any_number_of_rows_gives_the_same_bits(compiled: Kernels, name: str) -> None:
    torch.manual_seed(1)
    packed, x = pack(FORMATS[name][0]((40, 1100))), torch.randn(70, 1100)
    together = compiled.multiply([packed], x)[0]
    for rows in (1, 2, 3, 5, 6, 7, 12, 64):
        some = compiled.multiply([packed], x[-rows:].contiguous())[0]
        assert torch.equal(some, together[-rows:]), rows


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    rows=st.integers(2, 20),
    out=st.integers(1, 70),
    in_=st.integers(1, 1300),
)
def test_row_is_the_same_alone_to_the_bit(
    kernels: Kernels, name: str, rows: int, out: int, in_: int
) -> None:
    torch.manual_seed(in_)
    packed, x = pack(FORMATS[name][0]((out, in_))), torch.randn(rows, in_)
    together = kernels.multiply([packed], x)[0]
    alone = [kernels.multiply([packed], row[None].contiguous())[0, 0] for row in x]
    assert torch.equal(torch.stack(alone), together)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("rows", [1, 9])
def test_integers_are_exact(compiled: Kernels, bits: int, rows: int) -> None:
    """The largest codes and activations: no sum overflows, none is rounded."""
    zero = 1 << bits - 1
    weight = grouped((40, 192), bits, 32, 192, zero=zero, dtype=torch.float32)
    codes = torch.tensor([0, (1 << bits) - 1, zero], dtype=torch.uint8).repeat(40, 64)
    weight = replace(weight, codes=codes, scale=torch.ones(40, 1))
    x = torch.tensor([127.0, -127.0, 1.0]).repeat(rows, 64)
    exact = (x.double() @ weight.dequantised().double().T).float()
    assert torch.equal(compiled.multiply([pack(weight)], x)[0], exact)


def test_columns_may_be_in_another_order(compiled: Kernels) -> None:
    weight = grouped((48, 256), 4, 128, 128, zeros=True, order=True)
    for rows in (1, 9):
        x = torch.randn(rows, 256)
        exact = x.double() @ weight.dequantised().double().T
        assert error(compiled.multiply([pack(weight)], x)[0], exact) < 0.02


def test_part_of_the_rows_is_used_in_place(compiled: Kernels) -> None:
    for name in ("Q4_K", "IQ4_NL"):
        packed, x = pack(FORMATS[name][0]((64, 256))), torch.randn(3, 256)
        part = rows_of(packed, 16, 33)
        assert part is not None and rows_of(packed, 8, 16) is None
        whole = compiled.multiply([packed], x)[0]
        assert torch.equal(compiled.multiply([part], x)[0], whole[:, 16:49])


def test_grouped_and_int8_matrices_work_side_by_side(compiled: Kernels) -> None:
    pair, packed = quantise_rows(torch.randn(40, 96)), pack(FORMATS["Q4_0"][0]((40, 96)))
    for rows in (1, 8):
        x = torch.randn(rows, 96)
        first, second = compiled.multiply([pair, packed], x)
        assert torch.equal(first, compiled.multiply([pair], x)[0])
        assert torch.equal(second, compiled.multiply([packed], x)[0])


def test_all_instruction_sets_give_nearly_the_same(kernel_folder: Path) -> None:
    packed, x = pack(FORMATS["Q4_K"][0]((100, 700))), torch.randn(9, 700)
    results = [load_kernels(kernel_folder, flags).multiply([packed], x) for flags in PATHS.values()]
    assert all(error(result, results[0]) < 1e-6 for result in results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(100, dtype=torch.uint8)}, "a matrix is 100 torch.uint8"),
        ({"kind": "w8_g32_b32_f16"}, "the compiled step needs"),
        ({"kind": "w9_g32_b32_f16"}, "is not a layout"),
        ({"kind": "w4_g32_b32_f16_table"}, "the compiled step needs"),
        ({"data": torch.zeros(4608, dtype=torch.int8)}, "torch.int8"),
        ({"order": torch.zeros(256, dtype=torch.int64)}, "does not name each of them once"),
        ({"order": torch.arange(-1, 255)}, "does not name each of them once"),
        ({"order": torch.arange(10)}, "the order of a matrix is 10"),
    ],
)
def test_bytes_that_do_not_fit_the_layout_never_reach_the_kernels(
    compiled: Kernels, change: dict[str, object], message: str
) -> None:
    packed = pack(grouped((32, 256), 4, 32, 32, zero=8))
    with pytest.raises(IntegrityError, match=message):
        compiled.multiply([replace(packed, **change)], torch.zeros(1, 256))
