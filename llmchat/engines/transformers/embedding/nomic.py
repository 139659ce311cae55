"""Nomic BERT as an encoder: BERT with rotary positions and gated MLPs.

Reference: transformers' modeling_nomic_bert.py, which keeps the tensor names of the published
checkpoints in its files, but not their config keys (the code of nomic-ai/nomic-bert-2048).
"""

from typing import Any

from llmchat.engines.transformers.embedding.bert import TokenEmbedding, activation_of, layer_norm
from llmchat.engines.transformers.embedding.encoder import Attention, Block, Encoder, Mlp
from llmchat.engines.transformers.embedding.linear import Linear
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.families.config_values import NoPlan

# Key of the published config.json → key of transformers.
_KEYS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
    "activation_function": "hidden_act",
}
_THETA = 1000.0


def nomic_bert(config: dict[str, Any], tensors: NamedTensors) -> Encoder:
    """The encoder of a checkpoint with config keys of either kind."""
    config = {_KEYS.get(name, name): value for name, value in config.items()}
    if config.get("prenorm") or config.get("rotary_scaling_factor"):
        raise NoPlan("prenorm or rotary_scaling_factor")
    eps = float(config.get("layer_norm_eps", 1e-12))
    embed = TokenEmbedding(
        tensors.get("embeddings.word_embeddings.weight"),
        tensors.get("embeddings.token_type_embeddings.weight"),
        layer_norm(tensors, "emb_ln", eps),
    )
    blocks: list[Block] = []
    for layer in range(int(config["num_hidden_layers"])):
        blocks += _layer(config, tensors, layer, eps)
    return Encoder(embed, tuple(blocks), int(config["hidden_size"]))


def _layer(config: dict[str, Any], tensors: NamedTensors, layer: int, eps: float) -> list[Block]:
    name = f"encoder.layers.{layer}"
    up = tensors.linear(f"{name}.mlp.fc12", f"{name}.mlp.fc11")
    return [
        Block(
            _attention(
                config, tensors.linear(f"{name}.attn.Wqkv"), tensors.linear(f"{name}.attn.out_proj")
            ),
            last=layer_norm(tensors, f"{name}.norm1", eps),
        ),
        Block(
            Mlp(up, tensors.linear(f"{name}.mlp.fc2"), _activation(config), gated=True),
            last=layer_norm(tensors, f"{name}.norm2", eps),
        ),
    ]


def _activation(config: dict[str, Any]) -> str:
    return activation_of(str(config.get("hidden_act", "silu")))


def _attention(config: dict[str, Any], qkv: Linear, out: Linear) -> Attention:
    heads = int(config["num_attention_heads"])
    parameters = config.get("rope_parameters") or {}
    theta = float(parameters.get("rope_theta") or config.get("rotary_emb_base") or _THETA)
    width = qkv.rows // (3 * heads)
    return Attention(qkv, out, heads, heads, width**-0.5, theta=theta)
