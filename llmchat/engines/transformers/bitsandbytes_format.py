"""Reads 8-bit checkpoints in bitsandbytes' layout, saved by transformers or prepared by llmchat.

`X.weight` is int8 [out, in], `X.SCB` float32 [out] and `X.weight_format` 0; W ≈ weight * SCB / 127.
Weights are mapped, not copied.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.checkpoint_names import is_transposed
from llmchat.engines.transformers.mapped_safetensors import MappedFile
from llmchat.engines.transformers.tensors import UngroupedTensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.parse_guard import shown
from llmchat.quantisation import is_int8

__all__ = ["HEAD_FILE", "Int8Tensors", "is_int8"]

HEAD_FILE = "head.safetensors"


class Int8Tensors(UngroupedTensors):
    """The tensors of 8-bit files. Shapes are those of the model's weights; `get` dequantises a
    weight to float32.
    """

    def __init__(
        self,
        files: Sequence[Path],
        config: dict[str, Any],
        head: Path | None = None,
        untied: bool = False,
    ):
        self.untied = untied
        self._files = {name: file for file in map(MappedFile, files) for name in file.shapes}
        self._head = MappedFile(head) if head else None
        self._config = config
        self._quantised = {
            f"{name.removesuffix('.SCB')}.weight" for name in self._files if name.endswith(".SCB")
        }
        for name in self._quantised:
            self._check(name)
        for name in self._files:
            if name.endswith(".weight_format") and int(self._files[name].get(name)):
                module = name.removesuffix(".weight_format")
                raise Mismatch(
                    f"{module} is stored in a layout of bitsandbytes before 0.45",
                    "save the checkpoint again with a newer version",
                )
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, file in self._files.items():
            if not name.endswith((".SCB", ".weight_format")):
                self.shapes[name] = file.shapes[name][:: -1 if self._turned(name) else 1]

    def _check(self, name: str) -> None:
        """Raise IntegrityError unless the weight is int8 and has a scale for each row."""
        scale = f"{name.removesuffix('.weight')}.SCB"
        if name not in self._files:
            raise IntegrityError(f"the weights have `{shown(scale)}` and no weight for it")
        kind, shape = self._files[name].fact(name)
        scale_kind, scale_shape = self._files[scale].fact(scale)
        if kind != torch.int8 or len(shape) != 2:
            raise IntegrityError(
                f"the tensor `{shown(name)}` has a scale, but is not an int8 matrix"
            )
        if scale_kind != torch.float32 or scale_shape != shape[:1]:
            raise IntegrityError(
                f"the tensor `{shown(scale)}` is not one float32 number for each row"
            )

    def get(self, name: str) -> Tensor:
        pair = self.int8(name)
        if pair is None:
            return self._files[name].get(name)
        weight = pair[0] * (pair[1] / 127)[:, None]
        return weight.T if self._turned(name) else weight

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        """int8 [out, in] and SCB [out] of one weight, or of several stacked along the rows.

        None if one of them is not 8-bit.
        """
        if not self._quantised.issuperset(names):
            return None
        return self._joined(names), self._joined(
            [f"{name.removesuffix('.weight')}.SCB" for name in names]
        )

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        """The prepared 8-bit copy of the output head, [vocab, hidden] and [vocab]; None without
        one.
        """
        if self._head is None:
            return None
        if not {"weight", "SCB"} <= set(self._head.shapes):
            raise IntegrityError(f"{self._head.path.name} holds no 8-bit copy of the output head")
        return self._head.get("weight"), self._head.get("SCB")

    def _joined(self, names: Sequence[str]) -> Tensor:
        files = {self._files[name] for name in names}
        return (
            files.pop().joined(names)
            if len(files) == 1
            else torch.cat([self._files[name].get(name) for name in names])
        )

    def _turned(self, name: str) -> bool:
        """Whether a weight is stored transposed: bitsandbytes stores a Conv1D like a linear."""
        return name in self._quantised and is_transposed(name.removesuffix(".weight"), self._config)
