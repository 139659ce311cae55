"""GPT-NeoX: StableLM 1, OpenAssistant, Dolly, Pythia, KoAlpaca (Black et al. 2022)."""

from llmchat.engines.transformers.families.blocks import Linear, Rotary
from llmchat.engines.transformers.families.config_values import Config, flag, size, with_defaults
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    heads_in_turn,
    joined_attention,
    layer_norm,
    parallel,
    plain_mlp,
)
from llmchat.engines.transformers.families.parts import model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
}
_NAMES = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}


def plan(config: Config) -> Plan:
    config = with_defaults({**_DEFAULTS, **config}, {}, _NAMES)
    rope = rotary(config, equal_heads(config)[1])
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        layer_norm(config, "gpt_neox.final_layer_norm"),
        embedding=Embedding("gpt_neox.embed_in.weight"),
        head=Head(Linear("lm_head", vocabulary, hidden)),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"gpt_neox.layers.{index}."
    heads = joined_attention(
        config,
        f"{prefix}attention.query_key_value",
        f"{prefix}attention.dense",
        heads_in_turn(*equal_heads(config)),
        rotary=rope,
    )
    up, down = f"{prefix}mlp.dense_h_to_4h", f"{prefix}mlp.dense_4h_to_h"
    mlp = plain_mlp(config, up, down, size(config, "intermediate_size"))
    combined = parallel if flag(config, "use_parallel_residual", True) else sequential
    return combined(
        Step(heads, layer_norm(config, f"{prefix}input_layernorm")),
        Step(mlp, layer_norm(config, f"{prefix}post_attention_layernorm")),
    )
