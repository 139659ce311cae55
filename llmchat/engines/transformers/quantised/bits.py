"""Unpacks codes that are packed densely, the first one in the lowest bits."""

import torch
from torch import Tensor

from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown

_WORD = 32


def unpack(words: Tensor, bits: int, count: int) -> Tensor:
    """int32 [rows, words] → uint8 [rows, count]: code i begins at bit i * bits of its row."""
    data = words.contiguous().view(torch.uint8)
    if bits == 8:
        return data[:, :count].contiguous()
    if bits in (2, 4):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        codes = (data[:, :, None] >> shifts) & (2**bits - 1)
        return codes.flatten(1)[:, :count].contiguous()
    return _across_bytes(data, bits, count)


def _across_bytes(data: Tensor, bits: int, count: int) -> Tensor:
    """Codes that can lie in two bytes."""
    start = torch.arange(count) * bits
    low, shift = start // 8, (start % 8).to(torch.int16)
    wide = torch.nn.functional.pad(data, (0, 1)).to(torch.int16)
    codes = (wide[:, low] >> shift) | (wide[:, low + 1] << (8 - shift))
    return (codes & (2**bits - 1)).to(torch.uint8)


def halves(data: Tensor) -> Tensor:
    """uint8 [..., bytes] → uint8 [..., 2 * bytes]: the low half of a byte comes first."""
    return torch.stack((data & 15, data >> 4), -1).flatten(-2)


def finite(values: Tensor, name: str) -> Tensor:
    """The tensor itself. Raises IntegrityError, with the name, if it holds NaN or infinity."""
    if not bool(torch.isfinite(values.float()).all()):
        raise IntegrityError(
            f"the scales `{shown(name)}` hold NaN or infinity",
            "the file is damaged, or was saved like this; use another copy or revision",
        )
    return values
