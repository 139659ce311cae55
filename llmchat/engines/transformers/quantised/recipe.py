"""How many bits each matrix of a model gets with `--weights int4`, by its role in the plan.

Most have four. Wider are those whose rounding costs most for their size, measured one by one on
SmolLM2-135M (docs/quantisation.md): values, and keys that heads share; what an MLP adds to the
rows, above all in the first and the last layers; the output head with the embedding; low ranks.
"""

from collections.abc import Iterator

from llmchat.engines.transformers.families import blocks as kinds
from llmchat.engines.transformers.families.blocks import Attention, Block, Linear
from llmchat.engines.transformers.families.check import linears_of
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised.four_bits import FIVE, FOUR, SIX, Grid

# Layers at each end whose MLP outputs have six bits: one eighth of all.
_ENDS = 8
_LOW_RANKS = kinds.Laurel | kinds.OpenStreams | kinds.JoinStreams | kinds.LayerInput


def recipe(plan: Plan) -> dict[str, Grid]:
    """The grid of each matrix by the name of its weight. Widths that are not whole groups are
    missing: these stay in 8 bits.
    """
    roles: dict[str, list[Grid]] = {}
    for linear, grid in _linears(plan):
        if linear.in_ % grid.group == 0:
            roles.setdefault(linear.weight, []).append(grid)
    found = {name: _together(grids) for name, grids in roles.items()}
    if plan.hidden % SIX.group == 0:
        ends = [plan.embedding.weight, *([] if plan.head.is_tied else [plan.head.linear.weight])]
        found |= dict.fromkeys(ends, SIX)
    return found


def _together(grids: list[Grid]) -> Grid:
    """The grid of a weight whose rows have these; five bits where they differ."""
    return grids[0] if len(set(grids)) == 1 else FIVE


def _linears(plan: Plan) -> Iterator[tuple[Linear, Grid]]:
    """Rows of one weight that have several roles are found once for each."""
    layers = plan.all_layers
    for number, layer in enumerate(layers):
        is_end = min(number, len(layers) - 1 - number) < len(layers) // _ENDS
        for stage in layer.stages:
            for step in stage:
                yield from _of_block(step.block, is_end)
    if plan.layer_inputs:
        yield plan.layer_inputs.linear, SIX


def _of_block(block: Block, is_end: bool) -> Iterator[tuple[Linear, Grid]]:
    if isinstance(block, kinds.Experts):
        for mlp in (*((block.shared,) if block.shared else ()), *block.experts):
            yield from _of_block(mlp, is_end)
    elif isinstance(block, Attention):
        yield from _of_attention(block)
    elif isinstance(block, kinds.Mlp):
        yield from ((linear, FOUR) for linear in block.inputs)
        yield block.output, SIX if is_end else FIVE
    else:
        small = _small(block)
        yield from ((linear, SIX if linear in small else FOUR) for linear in linears_of(block))


def _small(block: Block) -> tuple[Linear, ...]:
    """The linears of a block that have a low rank."""
    if isinstance(block, _LOW_RANKS):
        return linears_of(block)
    if isinstance(block, kinds.LatentAttention):
        return block.down, block.turning, block.up
    if isinstance(block, kinds.DeltaNet | kinds.Rwkv7Time):
        return *block.low, *block.high
    return ()


def _of_attention(block: Attention) -> Iterator[tuple[Linear, Grid]]:
    wide = [block.values, *([block.keys] if block.keys.count < block.queries.count else [])]
    start = 0
    for linear in linears_of(block)[:-1]:
        rows = range(start, start + linear.out)
        start += linear.out
        if any(heads.start in rows for heads in wide):
            yield linear, FIVE if block.queries.start in rows else SIX
        else:
            yield linear, FOUR
    yield block.output, FOUR
