"""Blocks of GGUF kinds that are written: their layout, and how near they are to the numbers."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from llmchat.engines.transformers.quantised.four_bits import SIX, quantised
from llmchat.engines.transformers.quantised.gguf_blocks import LAYOUTS, blocks_of
from llmchat.engines.transformers.quantised.gguf_kinds import FITTED, copied, encoded, grid_of
from llmchat.engines.transformers.quantised.gguf_types import grouped
from llmchat.errors import IntegrityError
from llmchat.gguf_file import GgmlType
from llmchat.gguf_file.types import type_named

EVERY = pytest.mark.parametrize("name", LAYOUTS)
FITS = pytest.mark.parametrize("name", FITTED)
# Where a block has numbers of 16 bits; random bytes there could be infinite.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}  # fmt: skip
# Relative errors of normal numbers without importance, a little above what was measured.
ERRORS = {
    "Q2_K": 0.29, "Q3_K": 0.16, "Q4_K": 0.079, "Q5_K": 0.039, "Q6_K": 0.019, "Q4_0": 0.092,
    "Q4_1": 0.078, "Q5_0": 0.046, "Q5_1": 0.038, "IQ4_NL": 0.081, "IQ4_XS": 0.081, "MXFP4": 0.12,
}  # fmt: skip


def matrix(rows: int = 24, columns: int = 512, size: float = 0.02) -> Tensor:
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(5))
    return numbers * size


def random_blocks(kind: GgmlType) -> Tensor:
    random = np.random.default_rng(kind.bytes)
    blocks = random.integers(0, 255, (6, 512 // kind.block, kind.bytes), dtype=np.uint8)
    for at in HALVES.get(kind.name, []):
        halves = random.normal(size=(*blocks.shape[:2], 1)).astype(np.float16)
        blocks[..., at : at + 2] = halves.view(np.uint8)
    return torch.from_numpy(blocks.reshape(6, -1))


def fitted(weight: Tensor, name: str, importance: Tensor | None = None) -> Tensor:
    """What gguf-py reads from the blocks of a matrix."""
    data = b"".join(encoded(weight, type_named(name), "w", importance))
    blocks = np.frombuffer(data, np.uint8).reshape(len(weight), -1)
    return torch.from_numpy(gguf.quants.dequantize(blocks, Kind[name]))


def error(weight: Tensor, found: Tensor, importance: Tensor | None = None) -> float:
    used = torch.ones(weight.shape[1]) if importance is None else importance
    squares = ((found - weight).square() * used).sum() / (weight.square() * used).sum()
    return float(squares.sqrt())


@EVERY
def test_blocks_that_are_read_are_written_byte_for_byte(name: str) -> None:
    kind = type_named(name)
    blocks = random_blocks(kind)
    weight = grouped(kind, blocks)
    assert weight is not None and copied(weight, kind) == blocks.numpy().tobytes()
    assert [one for one in LAYOUTS if copied(weight, type_named(one))] == [name]


@EVERY
def test_a_weight_that_a_kind_cannot_hold_is_not_copied(name: str) -> None:
    kind = type_named(name)
    weight = grouped(kind, random_blocks(kind))
    assert weight is not None
    order = torch.arange(weight.shape[1]).flip(0)
    wrong = (
        replace(weight, order=order), replace(weight, bits=weight.bits + 1),
        replace(weight, zero=weight.zero + 1), replace(weight, scale=weight.scale.float() * 1.1),
    )  # fmt: skip
    assert not any(copied(one, kind) for one in wrong)


def test_scales_of_eight_bits_are_not_those_of_q6_k() -> None:
    """Our own six bits have larger scales and minima than any kind of GGUF."""
    weight = quantised(matrix(), None, SIX)
    assert not any(copied(weight, type_named(name)) for name in LAYOUTS)


@FITS
def test_gguf_py_reads_what_our_reader_reads(name: str) -> None:
    weight = quantised(matrix(), None, grid_of(LAYOUTS[name]))
    blocks = blocks_of(type_named(name), weight)
    theirs = gguf.quants.dequantize(blocks.numpy(), Kind[name])
    ours = grouped(type_named(name), blocks)
    assert ours is not None and np.array_equal(ours.dequantised().numpy(), theirs)
    assert np.array_equal(weight.dequantised().numpy(), theirs)


@FITS
def test_error_of_normal_numbers_is_small(name: str) -> None:
    assert error(matrix(), fitted(matrix(), name)) < ERRORS[name]


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"])
def test_error_is_at_most_that_of_gguf_py(name: str) -> None:
    """gguf-py rounds these as llama.cpp does, and cannot write the others."""
    try:
        theirs = gguf.quants.dequantize(
            gguf.quants.quantize(matrix().numpy(), Kind[name]), Kind[name]
        )
    except NotImplementedError:
        pytest.skip("gguf-py cannot write it")
    assert error(matrix(), fitted(matrix(), name)) <= error(matrix(), torch.from_numpy(theirs))


@FITS
def test_inputs_that_are_used_more_have_smaller_errors(name: str) -> None:
    weight, used = matrix(), torch.ones(512)
    used[::3] = 100.0
    alike, weighted = fitted(weight, name), fitted(weight, name, used)
    assert error(weight, weighted, used) < error(weight, alike, used)


@FITS
def test_zeros_and_constant_rows_are_exact(name: str) -> None:
    weight = torch.cat((torch.zeros(1, 256), torch.full((1, 256), 0.5)))
    found = fitted(weight, name)
    assert not found[0].any()
    assert torch.allclose(found[1], weight[1], rtol=0.01)


@FITS
def test_bytes_do_not_depend_on_threads_or_parts(name: str) -> None:
    weight, before = matrix(1200, 512), torch.get_num_threads()
    several = b"".join(encoded(weight, type_named(name), "w"))
    torch.set_num_threads(1)
    try:
        alone = [b"".join(encoded(part, type_named(name), "w")) for part in weight.split(500)]
    finally:
        torch.set_num_threads(before)
    assert several == b"".join(alone)


@pytest.mark.parametrize("name", [name for name in FITTED if name != "MXFP4"])
def test_numbers_that_a_kind_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=f"`w` has numbers that {name} cannot hold"):
        fitted(matrix(size=1e9), name)


@FITS
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_size_of_the_numbers_changes_no_error(name: str, size: float) -> None:
    assert error(matrix(size=size), fitted(matrix(size=size), name)) < 1.05 * ERRORS[name]
