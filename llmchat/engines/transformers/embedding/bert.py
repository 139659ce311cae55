"""BERT and XLM-RoBERTa as encoders. Reference: transformers' modeling_….py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from llmchat.engines.transformers.embedding.encoder import (
    Attention,
    Block,
    Encoder,
    LayerNorm,
    Mlp,
)
from llmchat.engines.transformers.embedding.packed import Packed
from llmchat.engines.transformers.embedding.tensors import NamedTensors
from llmchat.engines.transformers.families.config_values import NoPlan


@dataclass(frozen=True)
class TokenEmbedding:
    """Words, positions and segments, added and normalised. offset: of the first position."""

    words: Tensor
    types: Tensor
    norm: LayerNorm
    positions: Tensor | None = None
    offset: int = 0

    def __call__(self, packed: Packed) -> Tensor:
        x = F.embedding(packed.ids, self.words)
        if self.positions is not None:
            x = x + F.embedding(packed.positions + self.offset, self.positions)
        if packed.types is None or len(self.types) == 1:
            return self.norm(x + self.types[0])
        return self.norm(x + F.embedding(packed.types, self.types))


def bert(config: dict[str, Any], tensors: NamedTensors) -> Encoder:
    """BERT and XLM-RoBERTa, whose positions begin after the id of padding."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise NoPlan("position_embedding_type")
    offset = int(config.get("pad_token_id", 1)) + 1 if config["model_type"] != "bert" else 0
    eps = float(config.get("layer_norm_eps", 1e-12))
    embed = TokenEmbedding(
        tensors.get("embeddings.word_embeddings.weight"),
        tensors.get("embeddings.token_type_embeddings.weight"),
        layer_norm(tensors, "embeddings.LayerNorm", eps),
        tensors.get("embeddings.position_embeddings.weight"),
        offset,
    )
    layers = range(int(config["num_hidden_layers"]))
    blocks = [block for layer in layers for block in _bert_layer(config, tensors, layer, eps)]
    return Encoder(embed, tuple(blocks), int(config["hidden_size"]))


def _bert_layer(
    config: dict[str, Any], tensors: NamedTensors, layer: int, eps: float
) -> tuple[Block, Block]:
    name = f"encoder.layer.{layer}"
    own = f"{name}.attention.self"
    heads = int(config["num_attention_heads"])
    attention = Attention(
        tensors.linear(f"{own}.query", f"{own}.key", f"{own}.value"),
        tensors.linear(f"{name}.attention.output.dense"),
        heads,
        heads,
        (int(config["hidden_size"]) // heads) ** -0.5,
    )
    mlp = Mlp(
        tensors.linear(f"{name}.intermediate.dense"),
        tensors.linear(f"{name}.output.dense"),
        activation_of(config.get("hidden_act", "gelu")),
    )
    return (
        Block(attention, last=layer_norm(tensors, f"{name}.attention.output.LayerNorm", eps)),
        Block(mlp, last=layer_norm(tensors, f"{name}.output.LayerNorm", eps)),
    )


def layer_norm(tensors: NamedTensors, name: str, eps: float) -> LayerNorm:
    return LayerNorm(tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias"), eps)


def activation_of(name: str) -> str:
    """Our name of an activation function of a config. Raises NoPlan for an unknown one."""
    known = {"gelu": "gelu", "silu": "silu", "swish": "silu", "swiglu": "silu"}
    tanh = ("gelu_new", "gelu_pytorch_tanh")
    if name not in known and name not in tanh:
        raise NoPlan(f"activation function {name}")
    return known.get(name, "gelu_tanh")


Head = Callable[[Tensor], Tensor]


def score_head(tensors: NamedTensors) -> Head:
    """The head of a cross-encoder: from the vector of the first token [n, width] to [n, labels]."""
    if "classifier.out_proj.weight" in tensors:
        first, last = tensors.linear("classifier.dense"), tensors.linear("classifier.out_proj")
    else:
        first, last = tensors.linear("pooler.dense"), tensors.linear("classifier")
    return lambda x: last(first(x).tanh())
