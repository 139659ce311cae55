"""Which code runs a block: the table that a new kind of block gets a line in."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block
from llmchat.engines.transformers.pytorch.attention import TorchAttention, TorchMemory
from llmchat.engines.transformers.pytorch.experts import TorchExperts
from llmchat.engines.transformers.pytorch.latent import TorchLatentAttention
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.mlp import TorchLayerInput, TorchMlp
from llmchat.engines.transformers.pytorch.passes import Pass
from llmchat.engines.transformers.pytorch.recurrent_mixers import (
    DeltaNet,
    Mamba2,
    ShortConvolution,
)
from llmchat.engines.transformers.pytorch.recurrent_rwkv import RwkvChannel, RwkvTime
from llmchat.engines.transformers.pytorch.recurrent_rwkv7 import Rwkv7Time
from llmchat.engines.transformers.pytorch.streams import (
    TorchJoinStreams,
    TorchLaurel,
    TorchMixStreams,
    TorchOpenStreams,
)

# The rows of a pass, normed, [T, hidden] → what is added to them, [T, hidden].
Runner = Callable[[Tensor, Pass], Tensor]

Rows = Callable[[Tensor], Tensor]
Stateful = Callable[[Tensor, list[int], list[Tensor]], Tensor]

# Made of the block, its number in the plan, and the tensors.
_ATTENTION: dict[type, Callable[[Any, int, Loader], Runner]] = {
    blocks.Attention: TorchAttention,
    blocks.LatentAttention: TorchLatentAttention,
    blocks.Rwkv7Time: Rwkv7Time,
    blocks.Memory: TorchMemory,
}
# Run with the rows alone.
_ROWS: dict[type, Callable[[Any, Loader], Rows]] = {
    blocks.Mlp: TorchMlp,
    blocks.Experts: TorchExperts,
    blocks.Laurel: TorchLaurel,
}
# Run with the rows, and with what else the pass has of them.
_OF_PASS: dict[type, Callable[[Any, Loader], Runner]] = {
    blocks.LayerInput: TorchLayerInput,
    blocks.OpenStreams: TorchOpenStreams,
    blocks.MixStreams: TorchMixStreams,
    blocks.JoinStreams: TorchJoinStreams,
}
# Run with the rows, how many of them each text has, and the state of each text, which it changes.
_STATEFUL: dict[type, Callable[[Any, Loader], Stateful]] = {
    blocks.DeltaNet: DeltaNet,
    blocks.Mamba2: Mamba2,
    blocks.ShortConvolution: ShortConvolution,
    blocks.RwkvTime: RwkvTime,
    blocks.RwkvChannel: RwkvChannel,
}


def runs(block: Block) -> bool:
    """Whether torch can run a block of this kind."""
    return type(block) in {*_ATTENTION, *_ROWS, *_STATEFUL, *_OF_PASS}


def runner(block: Block, number: int, load: Loader) -> Runner:
    """number: of the block in its plan, and of what it remembers in the cache."""
    if of_pass := _OF_PASS.get(type(block)):
        return of_pass(block, load)
    if make := _ATTENTION.get(type(block)):
        return make(block, number, load)
    if of_states := _STATEFUL.get(type(block)):
        step = of_states(block, load)
        return lambda x, batch: step(x, batch.counts, batch.states(number))
    return RowsRunner(_ROWS[type(block)](block, load))


class RowsRunner:
    """A block whose rows do not depend on each other."""

    def __init__(self, run: Rows):
        self.run = run

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        return self.run(x)
