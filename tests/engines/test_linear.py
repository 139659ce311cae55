"""Linear layers against float64, with the activations that break careless kernels."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from llmchat.engines.transformers.pytorch import products
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer, Int8Linear, quantise_rows
from llmchat.engines.transformers.pytorch.linear import BnbInt8Linear, make_linear
from llmchat.settings.types import Weights

CPU = torch.device("cpu")


def error(
    layer: torch.nn.Module, weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None
) -> float:
    """Relative error of the layer against the original weights in float64."""
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if bias is None else bias.double()
    )
    return float((layer(x).double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize(
    ("out_features", "in_features"), [(64, 64), (33, 128), (576, 1536), (50, 40), (7, 17), (1, 16)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_int8_layer_is_close_to_float64(
    rows: int, out_features: int, in_features: int, dtype: torch.dtype
) -> None:
    """With torch's kernel, and without it: widths that 16 does not divide, and many rows."""
    torch.manual_seed(rows)
    weight, bias = torch.randn(out_features, in_features) * 0.02, torch.randn(out_features)
    quantised, maxima = quantise_rows(weight)
    layer = Int8Linear(quantised, maxima, bias, dtype, DequantBuffer())
    assert error(layer, weight, torch.randn(rows, in_features).to(dtype), bias) < 0.02


@pytest.mark.parametrize("outliers", [0, 2, 6])
def test_outlier_activations_do_not_cost_precision(outliers: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(256, 512) * 0.02
    x = torch.randn(32, 512)
    x[:, :outliers] *= 200
    layer = make_linear(weight, None, "int8", CPU, DequantBuffer())
    assert error(layer, weight, x.bfloat16()) < 0.015


def test_unaligned_activations_give_correct_results() -> None:
    """torch's kernel would crash on them."""
    torch.manual_seed(0)
    weight = torch.randn(64, 64) * 0.02
    layer = make_linear(weight, None, "int8", CPU, DequantBuffer())
    room = torch.randn(200).bfloat16()
    for offset in (1, 3, 8, 17):
        assert error(layer, weight, room[offset : offset + 64].view(1, 64)) < 0.02
    wide = torch.randn(4, 128).bfloat16()
    assert error(layer, weight, wide[:, 32:96]) < 0.02
    assert layer(torch.randn(2, 3, 64).bfloat16()).shape == (2, 3, 64)


def test_layers_of_different_sizes_share_a_buffer() -> None:
    buffer = DequantBuffer()
    for shape in ((32, 64), (128, 96), (16, 16)):
        weight = torch.randn(*shape)
        assert (
            error(
                make_linear(weight, None, "int8", CPU, buffer),
                weight,
                torch.randn(20, shape[1]).bfloat16(),
            )
            < 0.02
        )


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("kind", ["bf16", "int8", "int4", "nf4"])
def test_products_are_in_fp32_where_the_processor_has_none_of_bf16(
    multiplies: bool, kind: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_cpu_multiplies_bf16", lambda: multiplies)
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 128) * 0.02, torch.randn(64)
    layer = make_linear(weight, bias, kind, CPU, DequantBuffer())
    x = torch.randn(2, 20, 128).bfloat16()
    seen = TypesOfProducts()
    with torch.inference_mode(), seen:
        many, few = layer(x), layer(x[:1, :3])
    wanted = torch.bfloat16 if multiplies else torch.float32
    if kind == "nf4":
        # bitsandbytes multiplies out of sight.
        assert layer.compute_dtype == wanted
    else:
        assert seen.types == {wanted}
    assert many.dtype == few.dtype == torch.bfloat16 and many.shape == (2, 20, 64)
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    limit = {"bf16": 0.005, "int8": 0.02}.get(kind, 0.2)
    assert (many.double() - exact).norm() / exact.norm() < limit
    assert (few.double() - exact[:1, :3]).norm() / exact[:1, :3].norm() < limit


class TypesOfProducts(TorchDispatchMode):
    """The types of the operands of all products of at least 20 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        places = {"mm": (0, 1), "addmm": (1, 2), "linear": (0, 1)}.get(func.overloadpacket.__name__)
        if places:
            rows, weight = (args[place] for place in places)
            if rows.numel() >= 20 * rows.shape[-1]:
                self.types |= {rows.dtype, weight.dtype}
        return func(*args, **(kwargs or {}))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.floats(1e-6, 1e4))
def test_quantisation_error_is_at_most_half_a_step(rows: int, columns: int, size: float) -> None:
    weight = torch.randn(rows, columns) * size
    quantised, maxima = quantise_rows(weight)
    step = maxima[:, None] / 127
    assert (
        (quantised * step - weight).abs() <= step * 0.5001 + 1e-12
    ).all() and quantised.abs().max() <= 127


def test_row_of_zeros_stays_zero() -> None:
    quantised, maxima = quantise_rows(torch.zeros(2, 4))
    assert not quantised.any() and not maxima.any()


def test_quantised_bytes_are_close_to_those_of_bitsandbytes() -> None:
    import bitsandbytes.functional as bnb

    torch.manual_seed(0)
    weight = torch.randn(64, 128).half()
    theirs, their_maxima, _ = bnb.int8_vectorwise_quant(weight)
    ours, maxima = quantise_rows(weight)
    assert ((maxima >= their_maxima * 0.999) & (maxima <= their_maxima * 1.01)).all(), (
        "at most one bf16 step above the row's maximum"
    )
    assert (ours.int() - theirs.int()).abs().max() <= 1
    restored, exact = bnb.int8_vectorwise_dequant(ours, maxima), weight.float()
    assert (restored - exact).norm() <= 1.01 * (
        bnb.int8_vectorwise_dequant(theirs, their_maxima) - exact
    ).norm()


def test_bitsandbytes_kernels_run_on_the_same_bytes() -> None:
    """GPUs without Triton take this path; bitsandbytes has it on the CPU too."""
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 128) * 0.02, torch.randn(64)
    layer = BnbInt8Linear(*quantise_rows(weight), bias, torch.bfloat16)
    for rows in (1, 40):
        assert error(layer, weight, torch.randn(rows, 128).bfloat16(), bias) < 0.03


def test_nf4_keeps_its_bias() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 128) * 0.02, torch.randn(64)
    layer = make_linear(weight, bias, "nf4", CPU, DequantBuffer())
    assert error(layer, weight, torch.randn(4, 128).bfloat16(), bias) < 0.1


def test_widths_without_whole_nf4_blocks_use_8_bit() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 96) * 0.02
    layer = make_linear(weight, None, "nf4", CPU, DequantBuffer())
    assert (
        isinstance(layer, Int8Linear) and error(layer, weight, torch.randn(4, 96).bfloat16()) < 0.02
    )


@pytest.mark.parametrize("offset", [1, 8, 16])
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_int8_weights_may_be_at_any_address(offset: int, rows: int) -> None:
    """As in files of other programs; torch's kernel for a few rows reads aligned vectors."""
    weight, scb = quantise_rows(torch.randn(64, 64))
    moved = (
        torch.empty(64 * 64 + 64, dtype=torch.int8)[offset : offset + 64 * 64]
        .view(64, 64)
        .copy_(weight)
    )
    x = torch.randn(rows, 64).bfloat16()
    layers = [
        Int8Linear(one, scb, None, torch.bfloat16, DequantBuffer()) for one in (weight, moved)
    ]
    assert torch.equal(layers[0](x), layers[1](x))
