"""What a model computes, as a plan of few kinds of blocks (blocks.py).

A family's file makes the plan of a config.json; the executors (compiled/, pytorch/) read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from llmchat.engines.transformers.families.blocks import (
    Block,
    Linear,
    Norm,
    Rotary,
)


@dataclass(frozen=True)
class Step:
    """x += scale * post_norm(block(norm(x))), then x *= factor. stream_norm: x is normed first, so
    that what the block adds to is normed, too; such a step is the only one of its stage.
    """

    block: Block
    norm: Norm | None
    post_norm: Norm | None = None
    scale: float = 1.0
    factor: float = 1.0
    stream_norm: Norm | None = None


@dataclass(frozen=True)
class Layer:
    """Stages in order; all steps of a stage read the same x (a parallel residual).

    factor: a tensor [1] that multiplies x at the end of the layer.
    """

    stages: tuple[tuple[Step, ...], ...]
    factor: str | None = None


@dataclass(frozen=True)
class Embedding:
    """weight [vocabulary, hidden]; positions: a tensor of learned positions [count, hidden], the
    first of which is at row `offset`. scale: a factor of the token's row; norm: of the sum.
    """

    weight: str
    scale: float = 1.0
    positions: str | None = None
    position_count: int = 0
    offset: int = 0
    norm: Norm | None = None


@dataclass(frozen=True)
class Head:
    """The output head: the embedding's matrix if is_tied. logits: softcapped after `scale`."""

    linear: Linear
    is_tied: bool = False
    scale: float = 1.0
    softcap: float = 0.0


@dataclass(frozen=True)
class LayerInputs:
    """Inputs of layers, [layers * width] a token: (embedding * scale + norm(linear(x)) *
    linear_scale) * factor, where x is the embedded token.
    """

    embedding: str
    vocabulary: int
    scale: float
    linear: Linear
    linear_scale: float
    norm: Norm
    factor: float


@dataclass(frozen=True)
class Encoder:
    """Reads a whole prompt, embedded as by the decoder. layers: the last one writes the memories
    that the decoder sees. start: the token with which the decoder begins an answer.
    """

    layers: tuple[Layer, ...]
    start: int

    @property
    def block_count(self) -> int:
        return sum(len(stage) for layer in self.layers for stage in layer.stages)


@dataclass(frozen=True)
class Plan:
    """layers: in order. norm: before the head. longest: the most positions; 0: no limit. encoder:
    of a model that reads a prompt apart from its answer; its blocks are numbered first.
    answer_start: the token (GLM's <sop>) before whose first occurrence a text is context, which is
    read at once; where it has none, all of the text is answer.
    """

    hidden: int
    vocabulary: int
    embedding: Embedding
    layers: tuple[Layer, ...]
    norm: Norm | None
    head: Head
    layer_inputs: LayerInputs | None = None
    longest: int = 0
    encoder: Encoder | None = None
    answer_start: int | None = None

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """Those of the encoder first."""
        return (*self.encoder.layers, *self.layers) if self.encoder else self.layers

    @property
    def trained(self) -> int:
        """A text of more tokens has other rotary frequencies, see blocks.Rotary; 0: none has."""
        return max((rotary.trained for rotary in self.rotaries()), default=0)

    def rotaries(self) -> Iterator[Rotary]:
        """Those of all blocks."""
        for block in self.blocks():
            for name in ("rotary", "second_rotary"):
                if rotary := getattr(block, name, None):
                    yield rotary

    def steps(self) -> Iterator[Step]:
        for layer in self.all_layers:
            for stage in layer.stages:
                yield from stage

    def blocks(self) -> list[Block]:
        return [step.block for step in self.steps()]
