"""Multi-head latent attention: DeepSeek-V2 and V3, GLM-4.7-Flash (glm4_moe_lite)."""

from typing import Any

from llmchat.engines.transformers.families.blocks import (
    Experts,
    LatentAttention,
    Linear,
    Mlp,
    Norm,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    invalid,
    names,
    number,
    size,
)
from llmchat.engines.transformers.families.expert_parts import Views, routed, separate
from llmchat.engines.transformers.families.glm4_moe import (
    shared_expert,
    sigmoid_experts,
    sigmoid_views,
)
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    gated_mlp,
    layer_prefix,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary, scaling_of, yarn_magnitude

# That of the latent norms, whatever the config says of the others.
_LATENT_EPSILON = 1e-6


def plan(config: Config) -> Plan:
    rope = _rotary(config)
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    sparse = [index for index in range(size(config, "num_hidden_layers")) if _sparse(config, index)]
    return sigmoid_views(config, sparse[0]) if sparse else []


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    heads = latent_attention(config, f"{prefix}self_attn.", rope)
    return pre_norm_layer(config, prefix, heads, _mlp(config, index))


def _mlp(config: Config, index: int) -> Mlp | Experts:
    prefix = f"{layer_prefix(index)}mlp."
    if not _sparse(config, index):
        return gated_mlp(config, prefix)
    if config.get("model_type") == "deepseek_v2":
        return _experts_of_v2(config, prefix)
    return sigmoid_experts(config, prefix)


def _sparse(config: Config, index: int) -> bool:
    """Whether a layer has experts."""
    if config.get("model_type") == "glm4_moe_lite":
        kinds = names(config, "mlp_layer_types", size(config, "num_hidden_layers"))
        return kinds[index] == "sparse" if kinds else index > 0
    first = 0 if config.get("model_type") == "deepseek_v2" else 3
    return index >= count(config, "first_k_dense_replace", first)


def _experts_of_v2(config: Config, prefix: str) -> Experts:
    inner = size(config, "moe_intermediate_size")
    return routed(
        config,
        f"{prefix}gate",
        separate(config, f"{prefix}experts.", size(config, "n_routed_experts", 64), inner),
        size(config, "num_experts_per_tok"),
        factor=number(config, "routed_scaling_factor", 1.0),
        shared=shared_expert(config, prefix),
        **_groups_of_v2(config),
    )


def _groups_of_v2(config: Config) -> dict[str, int]:
    method = config.get("topk_method") or "greedy"
    if method == "greedy":
        return {}
    if method != "group_limited_greedy":
        raise invalid("topk_method", method)
    groups, top_groups = size(config, "n_group"), size(config, "topk_group")
    return {"groups": groups, "top_groups": top_groups, "group_members": 1}


def latent_attention(config: Config, prefix: str, rope: Rotary) -> LatentAttention:
    """With the names q_proj (or q_a_proj, q_b_proj), kv_a_proj_with_mqa, kv_b_proj and o_proj."""
    hidden, heads = size(config, "hidden_size"), size(config, "num_attention_heads")
    plain, turning = size(config, "qk_nope_head_dim", 128), size(config, "qk_rope_head_dim", 64)
    latent, values = size(config, "kv_lora_rank", 512), size(config, "v_head_dim", 128)
    queries, query_norm = _queries(config, prefix, heads * (plain + turning))
    joined = f"{prefix}kv_a_proj_with_mqa"
    return LatentAttention(
        queries,
        query_norm,
        down=Linear(joined, latent, hidden, 0, latent + turning),
        turning=Linear(joined, turning, hidden, latent, latent + turning),
        latent_norm=Norm(latent, _LATENT_EPSILON, f"{prefix}kv_a_layernorm.weight"),
        up=Linear(f"{prefix}kv_b_proj", heads * (plain + values), latent),
        output=Linear(f"{prefix}o_proj", hidden, heads * values),
        heads=heads,
        plain=plain,
        value_width=values,
        latent=latent,
        rotary=rope,
        scale=(plain + turning) ** -0.5 * _yarn_factor(config),
    )


def _queries(config: Config, prefix: str, out: int) -> tuple[tuple[Linear, ...], Norm | None]:
    hidden, rank = size(config, "hidden_size"), count(config, "q_lora_rank")
    if not rank:
        return (Linear(f"{prefix}q_proj", out, hidden),), None
    norm = Norm(rank, _LATENT_EPSILON, f"{prefix}q_a_layernorm.weight")
    return (
        Linear(f"{prefix}q_a_proj", rank, hidden),
        Linear(f"{prefix}q_b_proj", out, rank),
    ), norm


def _rotary(config: Config) -> Rotary:
    interleaved = flag(config, "rope_interleave", True)
    plain, turning = size(config, "qk_nope_head_dim", 128), size(config, "qk_rope_head_dim", 64)
    return rotary(config, turning, interleaved=interleaved, first=plain)


def _yarn_factor(config: Config) -> float:
    """YaRN stretches scores by `mscale_all_dim`, on both sides of the product."""
    scaling: dict[str, Any] = scaling_of(config)
    all_dims = number(scaling, "mscale_all_dim", 0.0)
    if scaling["rope_type"] == "default" or not all_dims:
        return 1.0
    return yarn_magnitude(number(scaling, "factor", 1.0), all_dims) ** 2
