"""Which plans the fused kernels run: those of the shape of Llama."""

from llmchat.engines.transformers.families.blocks import Attention, Mlp, Norm, Rotary
from llmchat.engines.transformers.families.parts import separate_heads
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step


def is_plain(plan: Plan) -> bool:
    """Whether graphs.CudaForward computes exactly what a plan describes."""
    attention = next((one for one in plan.blocks() if isinstance(one, Attention)), None)
    head = plan.head
    return (
        attention is not None
        and _is_plain_attention(attention)
        and all(_is_like(layer, attention) for layer in plan.layers)
        and plan.embedding == Embedding(plan.embedding.weight)
        and head == Head(head.linear, head.is_tied)
        and _is_plain_norm(plan.norm)
        and plan.layer_inputs is None
    )


def _is_like(layer: Layer, first: Attention) -> bool:
    """Whether a layer has the attention of the first one, with other weights, and then an MLP."""
    if list(map(len, layer.stages)) != [1, 1] or layer.factor:
        return False
    (attending,), (mixing,) = layer.stages
    attention, mlp = attending.block, mixing.block
    return (
        isinstance(attention, Attention)
        and isinstance(mlp, Mlp)
        and all(map(_is_plain_step, (attending, mixing)))
        and _is_plain_attention(attention)
        and attention.rotary is first.rotary
        and (attention.queries, attention.keys) == (first.queries, first.keys)
        and len(mlp.inputs) == 2
        and mlp == Mlp(mlp.inputs, mlp.output, "silu")
    )


def _is_plain_step(step: Step) -> bool:
    return step == Step(step.block, step.norm) and _is_plain_norm(step.norm)


def _is_plain_attention(block: Attention) -> bool:
    """Whether all fields but the sizes and names have their usual values."""
    heads, kv_heads, dim = block.queries.count, block.keys.count, block.keys.width
    usual = Attention(
        block.inputs,
        block.output,
        *separate_heads(heads, kv_heads, dim),
        scale=dim**-0.5,
        rotary=block.rotary,
    )
    return block == usual and block.rotary is not None and _turns_halves(block.rotary, dim)


def _turns_halves(rotary: Rotary, dim: int) -> bool:
    is_simple = not rotary.interleaved and not rotary.first and rotary.long is None
    is_simple = is_simple and rotary.counts == "all"
    return is_simple and rotary.width == dim and rotary.scale == 1


def _is_plain_norm(norm: Norm | None) -> bool:
    if norm is None or norm.weight is None or norm.group not in (0, norm.width):
        return False
    return norm == Norm(norm.width, norm.epsilon, norm.weight, group=norm.group)
