"""Tensors of GGUF files have the values of the reference, to the bit."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants
from torch import Tensor

from llmchat.engines.transformers.quantised.gguf_types import grouped, has_groups, plain
from llmchat.errors import Mismatch
from llmchat.gguf_file import GGML_TYPES, GgmlType

TYPES = {kind.name: kind for kind in GGML_TYPES.values()}
GROUPED = [name for name, kind in TYPES.items() if has_groups(kind)]
# Where a block has numbers of 16 bits; random bytes there could be infinite.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
    "TQ2_0": [64], "IQ2_XXS": [0], "IQ3_S": [0], "TQ1_0": [52],
}  # fmt: skip
ROWS, COLUMNS = 6, 512


def random_rows(kind: GgmlType) -> np.ndarray:
    random = np.random.default_rng(kind.bytes)
    shape = (ROWS, COLUMNS // kind.block, kind.bytes)
    blocks = random.integers(0, 256, shape, dtype=np.uint8)
    for at in HALVES.get(kind.name, []):
        halves = random.normal(size=(*shape[:2], 1)).astype(np.float16)
        blocks[..., at : at + 2] = halves.view(np.uint8)
    return blocks.reshape(ROWS, -1)


def same_bits(ours: Tensor, theirs: np.ndarray) -> bool:
    return bool(np.array_equal(ours.numpy().view(np.int32), theirs.view(np.int32)))


def test_every_type_of_the_issue_has_groups() -> None:
    wanted = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4"
    assert set(wanted.split()) <= set(GROUPED)


@pytest.mark.parametrize("name", GROUPED)
def test_random_blocks_have_the_values_of_the_reference(name: str) -> None:
    rows = random_rows(TYPES[name])
    weight = grouped(TYPES[name], torch.from_numpy(rows))
    assert weight is not None and weight.shape == (ROWS, COLUMNS)
    assert int(weight.codes.max()) < 2**weight.bits
    assert same_bits(weight.dequantised(), quants.dequantize(rows, Kind[name]))


@pytest.mark.parametrize("name", GROUPED)
def test_a_block_alone_at_an_odd_place_has_the_values_of_the_reference(name: str) -> None:
    """A matrix of one block is contiguous, wherever its bytes begin."""
    kind = TYPES[name]
    block = np.ascontiguousarray(random_rows(kind)[:1, : kind.bytes])
    data = torch.zeros(kind.bytes + 1, dtype=torch.uint8)
    data[1:] = torch.from_numpy(block[0])
    weight = grouped(kind, data[1:].view(1, -1))
    assert weight is not None and weight.shape == (1, kind.block)
    assert same_bits(weight.dequantised(), quants.dequantize(block, Kind[name]))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ2_0"])
def test_quantised_weights_have_the_values_of_the_reference(name: str) -> None:
    weight = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    rows = quants.quantize(weight, Kind[name])
    values = plain(TYPES[name], torch.from_numpy(rows), (2, ROWS // 2, COLUMNS))
    assert values.shape == (2, ROWS // 2, COLUMNS)
    assert same_bits(values.view(ROWS, COLUMNS), quants.dequantize(rows, Kind[name]))


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ3_S", "TQ1_0"])
def test_types_without_groups_are_dequantised(name: str) -> None:
    rows = random_rows(TYPES[name])
    assert grouped(TYPES[name], torch.from_numpy(rows)) is None
    values = plain(TYPES[name], torch.from_numpy(rows), (ROWS, COLUMNS))
    assert same_bits(values, quants.dequantize(rows, Kind[name]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_plain_tensors_keep_their_type(dtype: torch.dtype) -> None:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    tensor = torch.arange(12).view(3, 4).to(dtype)
    stored = torch.cat([torch.zeros(1, dtype=torch.uint8), tensor.flatten().view(torch.uint8)])
    # One byte further: what is mapped need not be aligned.
    found = plain(TYPES[names.get(dtype, "I32")], stored[1:], (3, 4))
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_a_type_that_nothing_reads_is_refused() -> None:
    with pytest.raises(Mismatch, match="tensors of the type Q8_K are not supported"):
        plain(TYPES["Q8_K"], torch.zeros(292, dtype=torch.uint8), (1, 256))
