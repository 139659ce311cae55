"""Checks that a checkpoint's tensors are those of its plan. The executors, above all the compiled
one, trust their shapes. No tensor is read here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block, Linear, Norm
from llmchat.engines.transformers.families.plan import Plan, Step
from llmchat.errors import IntegrityError, Mismatch

Shapes = Mapping[str, tuple[int, ...]]
_HINT = "config.json and weights must be of the same model; `llmchat verify` checks what was pulled"


def bind(plan: Plan, shapes: Shapes) -> Plan:
    """The plan for these tensors: its head is the embedding where they have none.

    Raises IntegrityError at the first tensor that is missing or has another shape.
    """
    layers = len(plan.all_layers)
    if layers > len(shapes):
        raise Mismatch(
            f"config.json has {layers:,} layers; the weights are {len(shapes):,} tensors"
        )
    if plan.head.linear.weight not in shapes:
        plan = replace(plan, head=replace(plan.head, is_tied=True))
    for name, shape in expected_tensors(plan):
        _check_shape(name, shapes.get(name), shape)
    for linear in linears(plan):
        if linear.bias in shapes:
            _check_shape(linear.bias, shapes[linear.bias], linear.shape[:1])
    for norm in _grouped_norms(plan):
        _check_groups(norm, shapes)
    for block in plan.blocks():
        if isinstance(block, blocks.Attention | blocks.Memory):
            _check_biases(block.inputs, shapes)
        if isinstance(block, blocks.LatentAttention) and block.up.bias in shapes:
            raise IntegrityError(f"no block can use `{block.up.bias}` of the weights", _HINT)
        if isinstance(block, blocks.Experts):
            _check_router(block, shapes)
    return plan


def linears(plan: Plan) -> Iterator[Linear]:
    """The quantised linears of all blocks in order, then those of the plan itself, the head last.

    Parts of one weight follow each other.
    """
    for block in plan.blocks():
        yield from linears_of(block)
    if plan.layer_inputs:
        yield plan.layer_inputs.linear
    yield plan.head.linear


def linears_of(block: Block) -> tuple[Linear, ...]:
    """The quantised linears of a block in the order in which executors number them."""
    match block:
        case blocks.Attention():
            own = () if block.shares is not None and not block.inputs else block.inputs
            return (*own, block.output)
        case blocks.LatentAttention():
            return (*block.queries, block.down, block.turning, block.up, block.output)
        case blocks.Mlp():
            return (*block.inputs, block.output)
        case blocks.DeltaNet():
            return (*block.inputs, *block.low, *block.high, block.output)
        case blocks.Experts():
            shared = (block.shared,) if block.shared else ()
            return tuple(one for mlp in (*shared, *block.experts) for one in linears_of(mlp))
        case blocks.Mamba2() | blocks.ShortConvolution():
            return block.input, block.output
        case blocks.RwkvTime():
            return block.key, block.value, block.receptance, block.output
        case blocks.RwkvChannel():
            return tuple(one for one in (block.key, block.receptance, block.value) if one)
        case blocks.Rwkv7Time():
            inputs = block.receptance, block.key, block.value
            return (*inputs, *block.low, *block.high, block.output)
        case blocks.LayerInput():
            return block.gate, block.output
        case blocks.Memory():
            return block.inputs
        case blocks.Laurel():
            return block.down, block.up
        case blocks.OpenStreams() | blocks.JoinStreams():
            return block.projections
        case blocks.MixStreams():
            return ()


def expected(plan: Plan) -> dict[str, tuple[int, ...]]:
    """The tensors that a plan cannot do without, and their shapes."""
    shared = {
        name: (norm.group,)
        for norm in _grouped_norms(plan)
        for name in (norm.weight, norm.bias)
        if name
    }
    return shared | dict(expected_tensors(plan))


def expected_tensors(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield plan.embedding.weight, (plan.vocabulary, plan.hidden)
    if plan.embedding.positions:
        yield plan.embedding.positions, (plan.embedding.position_count, plan.hidden)
    for norm in (plan.embedding.norm, plan.norm):
        yield from _of_norm(norm)
    for step in plan.steps():
        yield from _of_step(step)
    for layer in plan.all_layers:
        if layer.factor:
            yield layer.factor, (1,)
    if plan.layer_inputs:
        inputs = plan.layer_inputs
        yield inputs.embedding, (inputs.vocabulary, inputs.linear.out)
        yield inputs.linear.weight, inputs.linear.shape
        yield from _of_norm(inputs.norm)
    if not plan.head.is_tied:
        yield plan.head.linear.weight, plan.head.linear.shape


def _of_step(step: Step) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _of_norm(step.norm)
    yield from _of_norm(step.post_norm)
    yield from _of_norm(step.stream_norm)
    for linear in linears_of(step.block):
        yield linear.weight, linear.shape
    yield from _of_block(step.block)


def _of_block(block: Block) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a block that are not linears."""
    match block:
        case blocks.Attention():
            for norm in (block.query_norm, block.key_norm, block.value_norm):
                yield from _of_norm(norm)
            if block.sinks:
                yield block.sinks, (block.queries.count,)
            if block.distance_bias:
                bias = block.distance_bias
                yield bias.weight, (bias.buckets, block.queries.count)
        case blocks.LatentAttention():
            yield from _of_norm(block.query_norm)
            yield from _of_norm(block.latent_norm)
        case blocks.Mlp():
            for name in block.parameters:
                yield name, (1,)
        case blocks.Experts():
            yield from _of_experts(block)
        case blocks.DeltaNet():
            heads = block.values.count
            width = 2 * block.queries.count * block.queries.width + heads * block.values.width
            yield block.convolution, (width, 1, block.kernel)
            yield block.log_decay, (heads,)
            yield block.time_bias, (heads * block.decay.width,)
            yield from _of_norm(block.norm)
        case blocks.Mamba2():
            yield from _of_mamba(block)
        case blocks.ShortConvolution():
            yield block.convolution, (block.width, 1, block.kernel)
            if block.convolution_bias:
                yield block.convolution_bias, (block.width,)
        case blocks.RwkvTime():
            yield from ((name, (block.width,)) for name in (block.decay, block.first))
            yield from ((name, (1, 1, block.width)) for name in block.mixes)
        case blocks.RwkvChannel():
            shape = (1, 1, block.width) if block.receptance else (block.width,)
            yield from ((name, shape) for name in block.mixes)
        case blocks.Rwkv7Time():
            width = block.heads * block.width
            yield from ((name, (width,)) for name in block.mixes)
            yield from ((name, (width,)) for name in (block.key_scale, block.key_mix))
            yield block.bonus, (block.heads, block.width)
        case blocks.LayerInput():
            yield from _of_norm(block.stream_norm)
            if block.scale:
                yield block.scale, (block.output.out,)
        case blocks.Laurel():
            yield from _of_norm(block.norm)
        case blocks.MixStreams():
            yield from _of_norm(block.norm)
            yield from ((one.weight, one.shape) for one in (block.router, block.coefficients))
        case blocks.OpenStreams() | blocks.JoinStreams() | blocks.Memory():
            pass


def _check_router(block: blocks.Experts, shapes: Shapes) -> None:
    """Its bias, which it may have, and its correction, which may be a row of a matrix."""
    count = len(block.experts)
    if block.router.bias in shapes:
        _check_shape(block.router.bias, shapes[block.router.bias], (count,))
    if block.correction:
        shape = shapes.get(block.correction)
        _check_shape(block.correction, shape, (1, count) if shape == (1, count) else (count,))


def _of_experts(block: blocks.Experts) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that have one shape, see `_check_router` for the others."""
    yield block.router.weight, block.router.shape
    if block.shared_gate:
        yield block.shared_gate.weight, block.shared_gate.shape
    for norm in block.norms:
        yield from _of_norm(norm)
    if block.expert_scale:
        yield block.expert_scale, (len(block.experts),)


def _of_mamba(block: blocks.Mamba2) -> Iterator[tuple[str, tuple[int, ...]]]:
    channels = block.heads * block.width + 2 * block.groups * block.state
    yield block.convolution, (channels, 1, block.kernel)
    if block.convolution_bias:
        yield block.convolution_bias, (channels,)
    for name in (block.log_decay, block.time_bias, block.skip):
        yield name, (block.heads,)
    yield from _of_norm(block.norm)


def _of_norm(norm: Norm | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a norm of groups have `width` numbers, or `group`, in one dimension or two:
    they are checked where they are read.
    """
    if norm is None or norm.group:
        return
    for name in (norm.weight, norm.bias):
        if name:
            yield name, (norm.width,)


def _check_biases(inputs: tuple[Linear, ...], shapes: Shapes) -> None:
    """Queries, keys and values are used as one matrix: all of them have a bias, or none."""
    has_bias = [linear.bias in shapes for linear in inputs]
    if any(has_bias) and not all(has_bias):
        with_bias, without = (inputs[has_bias.index(one)].bias for one in (True, False))
        raise IntegrityError(f"the weights have `{with_bias}` but not `{without}`", _HINT)


def _grouped_norms(plan: Plan) -> Iterator[Norm]:
    inputs = () if plan.layer_inputs is None else (plan.layer_inputs,)
    for part in (*plan.blocks(), *inputs):
        for value in vars(part).values():
            if isinstance(value, Norm) and value.group:
                yield value


def _check_groups(norm: Norm, shapes: Shapes) -> None:
    """The tensors have `group` numbers, or as many as a row, in one dimension or by groups."""
    groups = (norm.width // norm.group, norm.group)
    for name in filter(None, (norm.weight, norm.bias)):
        if shapes.get(name) not in ((norm.width,), groups):
            _check_shape(name, shapes.get(name), (norm.group,))


def _check_shape(name: str, shape: tuple[int, ...] | None, expected: tuple[int, ...]) -> None:
    if shape is None:
        raise IntegrityError(f"the weights have no `{name}`, which config.json requires", _HINT)
    # Cohere's norms of one head are [1, width].
    if shape[:-1] == (1,) * len(shape[:-1]) and len(expected) == 1:
        shape = shape[-1:]
    if tuple(shape) != expected:
        raise IntegrityError(
            f"the tensor `{name}` is {_times(shape)}; config.json requires {_times(expected)}",
            _HINT,
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
