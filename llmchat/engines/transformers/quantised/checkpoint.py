"""The tensors of a safetensors checkpoint whose weights are in few bits.

Names and shapes are those of the model's weights, whatever tensors they are made of.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.mapped_safetensors import MappedFile
from llmchat.engines.transformers.quantised import (
    awq,
    chatglm,
    compressed_tensors,
    fp8,
    gptq,
    mxfp4,
    nf4,
)
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.parse_guard import reading
from llmchat.quantisation import StoredWeight, logical_shapes, stored_weights

_Read = Callable[[StoredWeight, Callable[[str], Tensor]], GroupedWeight | Tensor]
_READERS: dict[str, _Read] = {
    "gptq": gptq.read,
    "awq": awq.read,
    "packed": compressed_tensors.read_packed,
    "integers": compressed_tensors.read_integers,
    "floats": fp8.read,
    "mxfp4": mxfp4.read,
    "bitsandbytes": nf4.read,
    "chatglm": chatglm.read,
}


class QuantisedTensors:
    """`get` dequantises to float32, exactly; `grouped` returns the numbers of the files.

    Raises Mismatch for a kind that llmchat does not run, and IntegrityError for tensors that do not
    fit each other.
    """

    untied: bool = False

    def __init__(self, files: Sequence[Path], config: dict[str, Any]):
        self._files = {name: file for file in map(MappedFile, files) for name in file.shapes}
        facts = {name: file.stored(name) for name, file in self._files.items()}
        self._stored = stored_weights(config, facts, self._bytes)
        self.shapes: dict[str, tuple[int, ...]] = logical_shapes(facts, self._stored)
        self._stack: tuple[str, Tensor] | None = None

    def get(self, name: str) -> Tensor:
        stored = self._stored.get(name)
        if stored is None:
            return self._plain(name)
        if self._stack and self._stack[0] == name:
            return self._stack[1]
        found = self._read(stored)
        values = found.dequantised() if isinstance(found, GroupedWeight) else found
        if values.dim() > 2:
            # Its matrices are asked for one after the other.
            self._stack = name, values
        return values

    def grouped(self, name: str) -> GroupedWeight | None:
        stored = self._stored.get(name)
        if stored is None or not stored.is_grid:
            return None
        found = self._read(stored)
        return found if isinstance(found, GroupedWeight) else None

    def packed(self, name: str) -> PackedWeight | None:
        return None

    def stored_size(self, name: str) -> int | None:
        stored = self._stored.get(name)
        return stored.size if stored and stored.is_grid else None

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        """Rows with one scale and signed codes (ChatGLM's) are int8 as they are."""
        if any(name not in self._stored or self._stored[name].form != "chatglm" for name in names):
            return None
        found = [self._read(self._stored[name]) for name in names]
        pairs = [_signed_rows(one) for one in found if isinstance(one, GroupedWeight)]
        weights, scales = zip(*pairs, strict=True)
        return torch.cat(weights), torch.cat(scales)

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return None

    def _read(self, stored: StoredWeight) -> GroupedWeight | Tensor:
        with reading("the quantised weights"):
            return _READERS[stored.form](stored, self._plain)

    def _plain(self, name: str) -> Tensor:
        return self._files[name].mapped_again().get(name)

    def _bytes(self, name: str) -> bytes:
        return bytes(self._plain(name).contiguous().flatten().view(torch.uint8).tolist())


def _signed_rows(weight: GroupedWeight) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and SCB [out] of rows that have one scale each."""
    codes = (weight.codes.to(torch.int16) - weight.zero).to(torch.int8)
    return codes, weight.scale[:, 0].float() * 127
