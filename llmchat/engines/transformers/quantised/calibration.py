"""Measures how much each input of a model's linears is used, in a short text that it reads once.

The weights are read when they are used and are not kept, so the pass takes the memory of its
largest matrix and of the text's activations.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.blocks import Linear
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.live_lora import Switch
from llmchat.engines.transformers.pytorch.forward import TorchForward, supports
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.tensors import Tensors
from llmchat.prompt import Prompt
from llmchat.settings.types import Weights

TEXT = Path(__file__).with_name("calibration.txt")
# Tokens that are read, in pieces of so many.
_TOKENS, _PIECE = 2048, 512


def importance(plan: Plan, tensors: Tensors, tokens: Tokenizer) -> dict[str, Tensor]:
    """By the name of a weight, float32 [in]: the mean of the squares of its inputs.

    Weights that no token reaches (experts) are missing, and all weights of a model that torch does
    not run, or that reads its prompt apart.
    """
    if plan.encoder or not supports(plan):
        return {}
    ids = tokens.encode(Prompt(TEXT.read_text("utf-8"), (), bos=False))[:_TOKENS]
    length = min(_PIECE, plan.longest or _PIECE)
    pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
    return measured(plan, tensors, pieces)


def measured(plan: Plan, tensors: Tensors, texts: Sequence[list[int]]) -> dict[str, Tensor]:
    """As `importance`, of these token ids."""
    found: dict[str, _Squares] = {}
    forward = _Measuring(plan, tensors, found)
    with torch.inference_mode():
        forward.run([SequenceInput(forward.new_cache(), ids) for ids in texts])
    return {name: squares.mean() for name, squares in found.items() if squares.count}


class _Squares:
    """Sums the squares of inputs."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width)

    def add(self, x: Tensor) -> None:
        """x: [..., in]"""
        rows = x.float().flatten(0, -2)
        self._sum += rows.square().sum(0)
        self.count += len(rows)

    def mean(self) -> Tensor:
        return self._sum / self.count


class _Measuring(TorchForward):
    """Runs a plan in bf16 and adds the inputs of its linears to `found`."""

    def __init__(self, plan: Plan, tensors: Tensors, found: dict[str, _Squares]):
        self._found = found
        super().__init__(plan, tensors, "bf16", torch.device("cpu"))

    def _loader(self, tensors: Tensors, kind: Weights, device: torch.device) -> Loader:
        return _MeasuringLoader(tensors, kind, device, self._switch, self._found)


class _MeasuringLoader(Loader):
    def __init__(
        self, tensors: Tensors, kind: Weights, device: torch.device, switch: Switch,
        found: dict[str, _Squares],
    ):  # fmt: skip
        super().__init__(tensors, kind, device, switch)
        self._found = found

    def layer(self, pieces: Sequence[Linear]) -> nn.Module:
        squares = [self._found.setdefault(piece.weight, _Squares(piece.in_)) for piece in pieces]
        return _Measured(self, pieces, squares)


class _Measured(nn.Module):
    """A linear layer that reads its weights for each call."""

    def __init__(self, load: Loader, pieces: Sequence[Linear], squares: Sequence[_Squares]):
        super().__init__()
        self._load, self._pieces = load, pieces
        self._squares = list({id(one): one for one in squares}.values())
        self._bias = load.bias(pieces)

    def forward(self, x: Tensor) -> Tensor:
        for squares in self._squares:
            squares.add(x)
        bias = None if self._bias is None else self._bias.to(x.dtype)
        return F.linear(x, self._load.weight(self._pieces).to(x.dtype), bias)
