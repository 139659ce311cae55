"""Products of the compiled kernels against float64, and the same to the bit for any rows."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compiled_models import PATHS, dequantised, error, needs_compiler
from torch import Tensor

from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.pytorch.int8 import quantise_rows

pytestmark = needs_compiler


def in_groups(x: Tensor) -> Tensor:
    """Activations as they are quantised: 127 steps to the largest of each group of 32."""
    padded = torch.nn.functional.pad(x.double(), (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    step = padded.abs().amax(dim=2, keepdim=True).clamp(min=1e-30) / 127
    return ((padded / step).round() * step).flatten(1)[:, : x.shape[1]]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 13, 70])
@pytest.mark.parametrize(
    ("out", "in_"), [(64, 64), (33, 128), (576, 1600), (50, 40), (7, 17), (1, 16), (32, 1)]
)
def test_products_are_close_to_float64(kernels: Kernels, rows: int, out: int, in_: int) -> None:
    """Of the quantised activations; a number between two steps may have been rounded either way."""
    torch.manual_seed(rows)
    pairs = [quantise_rows(torch.randn(out, in_)) for _ in range(2)]
    x = torch.randn(rows, in_)
    for got, pair in zip(kernels.multiply(pairs, x), pairs, strict=True):
        weights = dequantised(*pair).T
        size = x.double().abs() @ weights.abs()
        assert ((got - in_groups(x) @ weights).abs() <= 1e-6 * size).float().mean() > 0.99
        assert ((got - x.double() @ weights).abs() <= 0.01 * size).all()


def test_outlier_costs_precision_only_in_its_own_group(kernels: Kernels) -> None:
    torch.manual_seed(0)
    weight, scb = quantise_rows(torch.randn(256, 512))
    x = torch.randn(8, 512)
    x[:, 5] *= 1000
    weight[:, :32] = 0
    exact = x.double() @ dequantised(weight, scb).T
    assert error(kernels.multiply([(weight, scb)], x)[0], exact) < 0.01


@pytest.mark.parametrize("rows", [1, 9])
def test_extreme_integers_are_exact(kernels: Kernels, rows: int) -> None:
    """quantise_rows never writes -128, but a file may hold it."""
    weight = torch.tensor([-128, -127, 0, 127], dtype=torch.int8).repeat(40, 48)
    x = torch.tensor([127.0, -127.0, 1.0]).repeat(rows, 64)
    exact = (x.double() @ weight.double().T).float()
    assert torch.equal(kernels.multiply([(weight, torch.full((40,), 127.0))], x)[0], exact)


@pytest.mark.parametrize("offset", [1, 3, 32])
def test_weights_may_be_at_any_address(kernels: Kernels, offset: int) -> None:
    weight, scb = quantise_rows(torch.randn(48, 96))
    buffer = torch.empty(48 * 96 + 64, dtype=torch.int8)
    moved = buffer[offset : offset + 48 * 96].view(48, 96).copy_(weight)
    for rows in (1, 8):
        x = torch.randn(rows, 96)
        expected = kernels.multiply([(weight, scb)], x)
        assert torch.equal(kernels.multiply([(moved, scb)], x), expected)


def test_zeros_give_zeros(kernels: Kernels) -> None:
    weight, scb = quantise_rows(torch.randn(16, 64))
    assert not kernels.multiply([(weight, scb)], torch.zeros(3, 64)).any()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.integers(2, 20),
    out=st.integers(1, 70),
    in_=st.integers(1, 2200),
    seed=st.integers(0, 99),
)
def test_row_is_the_same_alone_to_the_bit(
    kernels: Kernels, rows: int, out: int, in_: int, seed: int
) -> None:
    torch.manual_seed(seed)
    pair, x = quantise_rows(torch.randn(out, in_)), torch.randn(rows, in_)
    together = kernels.multiply([pair], x)[0]
    for row in range(rows):
        alone = kernels.multiply([pair], x[row : row + 1].contiguous())[0, 0]
        assert torch.equal(alone, together[row])


@pytest.mark.parametrize("in_", [511, 512, 576, 1024, 8191, 8192, 8193, 8768, 16400])
def test_long_row_is_the_same_alone_to_the_bit(kernels: Kernels, in_: int) -> None:
    """Around the lengths at which a row is summed in several runs."""
    torch.manual_seed(in_)
    pair, x = quantise_rows(torch.randn(33, in_)), torch.randn(7, in_)
    together = kernels.multiply([pair], x)[0]
    assert torch.equal(kernels.multiply([pair], x[:1].contiguous())[0, 0], together[0])
    assert error(together, x.double() @ dequantised(*pair).T) < 0.01


def test_read_memory_reads_every_number_once(kernels: Kernels) -> None:
    buffer = torch.arange(5 * 2**18 + 7, dtype=torch.int32) % 91
    assert kernels.read_memory(buffer) == int(buffer[: 5 * 2**18].sum())


def test_all_instruction_sets_give_nearly_the_same(kernel_folder: Path) -> None:
    """The integers are equal; only some instruction sets round a product before adding it."""
    torch.manual_seed(0)
    pair, x = quantise_rows(torch.randn(100, 700)), torch.randn(9, 700)
    results = [load_kernels(kernel_folder, flags).multiply([pair], x) for flags in PATHS.values()]
    assert all(error(result, results[0]) < 1e-6 for result in results)
