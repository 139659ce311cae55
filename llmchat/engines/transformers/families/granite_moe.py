"""Granite 3 with experts, also with a shared MLP."""

from dataclasses import replace

from llmchat.engines.transformers.families.blocks import Experts, Linear, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import Config, count, number, size
from llmchat.engines.transformers.families.expert_parts import (
    PROJECTIONS,
    STACKED,
    Stack,
    Views,
    routed,
    separate,
)
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    head_sizes,
    joined_gated_mlp,
    layer_prefix,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan
from llmchat.engines.transformers.families.rope import rotary
from llmchat.engines.transformers.families.views import View

_ON_DISK = Stack("input_linear.weight", "output_linear.weight")


def plan(config: Config) -> Plan:
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    scale = number(config, "embedding_multiplier", 1.0)
    lm_head = Linear("lm_head", size(config, "vocab_size"), size(config, "hidden_size"))
    return model(
        config,
        layers,
        rms(config, "model.norm.weight"),
        embedding=Embedding("model.embed_tokens.weight", scale),
        head=Head(lm_head, scale=1 / number(config, "logits_scaling", 1.0, least=1e-6)),
    )


def views(config: Config) -> Views:
    found: Views = []
    for prefix in map(layer_prefix, range(size(config, "num_hidden_layers"))):
        found += expert_views(config, prefix)
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix, scale = layer_prefix(index), number(config, "residual_multiplier", 1.0)
    multiplier = number(config, "attention_multiplier", 1.0)
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, scale=multiplier)
    layer = pre_norm_layer(config, prefix, heads, granite_experts(config, prefix))
    return Layer(tuple((replace(step, scale=scale),) for (step,) in layer.stages))


def granite_experts(config: Config, prefix: str) -> Experts:
    """The experts of a layer behind `prefix`, and its shared MLP."""
    moe, has_shared = f"{prefix}block_sparse_moe.", count(config, "shared_intermediate_size")
    return routed(
        config,
        f"{moe}router.layer",
        separate(config, f"{moe}experts.", *_sizes(config)),
        size(config, "num_experts_per_tok", 2),
        score="softmax_of_top",
        shared=shared_mlp(config, prefix) if has_shared else None,
    )


def shared_mlp(config: Config, prefix: str) -> Mlp:
    names = f"{prefix}shared_mlp.input_linear", f"{prefix}shared_mlp.output_linear"
    return joined_gated_mlp(config, *names, size(config, "shared_intermediate_size"))


def expert_views(config: Config, prefix: str) -> Views:
    """The experts of a layer, in a file or in transformers' memory."""
    moe = f"{prefix}block_sparse_moe."
    stacks = (_ON_DISK, moe), (STACKED, f"{moe}experts.")
    found: Views = [(f"{moe}router.layer.weight", View(f"{moe}router.weight"))]
    for stack, source in stacks:
        found += stack.views(source, f"{moe}experts.", *_sizes(config), PROJECTIONS)
    return found


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    return size(config, "num_local_experts", 8), size(config, "intermediate_size")
