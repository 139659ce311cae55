"""T5 (Raffel et al. 2020), T5 1.1, Flan-T5 and mT5: an encoder reads the prompt, a decoder answers.

Relative position biases replace position embeddings, and scores are not scaled.
"""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Heads,
    Linear,
    Memory,
    Mlp,
    Norm,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    count,
    epsilon,
    flag,
    invalid,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.distance import DistanceBias, buckets_of
from llmchat.engines.transformers.families.parts import (
    ACTIVATIONS,
    separate_heads,
    sequential,
)
from llmchat.engines.transformers.families.plan import (
    Embedding,
    Encoder,
    Head,
    Layer,
    Plan,
    Step,
)

_DEFAULTS = {
    "d_ff": 2048, "d_kv": 64, "d_model": 512, "feed_forward_proj": "relu", "num_heads": 8,
    "num_layers": 6, "pad_token_id": 0, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "vocab_size": 32128,
}  # fmt: skip
_MULTILINGUAL = _DEFAULTS | {
    "d_ff": 1024, "feed_forward_proj": "gated-gelu", "num_heads": 6, "num_layers": 8,
    "vocab_size": 250112,
}  # fmt: skip
# More would be a table of distances that no model needs.
_MAX_REACH = 2**16


def plan(config: Config) -> Plan:
    is_multilingual = config["model_type"] != "t5"
    config = with_defaults(config, _MULTILINGUAL if is_multilingual else _DEFAULTS)
    if not flag(config, "is_encoder_decoder", True):
        raise NoPlan("is_encoder_decoder")
    hidden, vocabulary = size(config, "d_model"), size(config, "vocab_size")
    layers, own = size(config, "num_layers"), size(config, "num_decoder_layers", 0)
    answering = own or layers
    return Plan(
        hidden,
        vocabulary,
        Embedding("shared.weight"),
        tuple(_decoder_layer(config, index, 2 * layers + index) for index in range(answering)),
        _norm(config, "decoder.final_layer_norm"),
        Head(Linear("lm_head", vocabulary, hidden), scale=_head_scale(config)),
        encoder=Encoder(_encoder_layers(config, layers, answering), _start(config)),
    )


def _encoder_layers(config: Config, layers: int, answering: int) -> tuple[Layer, ...]:
    """Those of the encoder, then one of the memories of the decoder's layers."""
    own = [_encoder_layer(config, index) for index in range(layers)]
    norm = _norm(config, "encoder.final_layer_norm")
    return *own, sequential(*(Step(_memory(config, index), norm) for index in range(answering)))


def _encoder_layer(config: Config, index: int) -> Layer:
    prefix = f"encoder.block.{index}.layer."
    heads = _self_attention(config, index, "encoder")
    return sequential(
        Step(heads, _norm(config, f"{prefix}0.layer_norm")),
        Step(_mlp(config, f"{prefix}1."), _norm(config, f"{prefix}1.layer_norm")),
    )


def _decoder_layer(config: Config, index: int, memory: int) -> Layer:
    """memory: the number of the block whose keys and values it sees."""
    prefix = f"decoder.block.{index}.layer."
    heads = _self_attention(config, index, "decoder")
    return sequential(
        Step(heads, _norm(config, f"{prefix}0.layer_norm")),
        Step(_cross_attention(config, index, memory), _norm(config, f"{prefix}1.layer_norm")),
        Step(_mlp(config, f"{prefix}2."), _norm(config, f"{prefix}2.layer_norm")),
    )


def _self_attention(config: Config, index: int, side: str) -> Attention:
    prefix = f"{side}.block.{index}.layer.0.SelfAttention."
    heads, width = size(config, "num_heads"), size(config, "d_kv")
    return Attention(
        tuple(_inner(config, f"{prefix}{name}") for name in "qkv"),
        _outer(config, f"{prefix}o"),
        *separate_heads(heads, heads, width),
        scale=1.0,
        sees="all" if side == "encoder" else "before",
        distance_bias=_distance_bias(config, index, side),
    )


def _cross_attention(config: Config, index: int, memory: int) -> Attention:
    prefix = f"decoder.block.{index}.layer.1.EncDecAttention."
    width = size(config, "d_kv")
    heads = Heads(size(config, "num_heads"), width, 0, width)
    return Attention(
        (_inner(config, f"{prefix}q"),),
        _outer(config, f"{prefix}o"),
        heads,
        heads,
        heads,
        scale=1.0,
        sees="memory",
        shares=memory,
    )


def _memory(config: Config, index: int) -> Memory:
    prefix = f"decoder.block.{index}.layer.1.EncDecAttention."
    heads, width = size(config, "num_heads"), size(config, "d_kv")
    return Memory(
        (_inner(config, f"{prefix}k"), _inner(config, f"{prefix}v")),
        Heads(heads, width, 0, width),
        Heads(heads, width, heads * width, width),
    )


def _distance_bias(config: Config, index: int, side: str) -> DistanceBias:
    """The first layer's, or with UMT5 that of each layer."""
    first = index if config["model_type"] == "umt5" else 0
    buckets = size(config, "relative_attention_num_buckets")
    reach = size(config, "relative_attention_max_distance")
    if reach > _MAX_REACH:
        raise NoPlan("relative_attention_max_distance")
    if not 4 <= buckets < 2 * reach:
        raise invalid("relative_attention_num_buckets", buckets)
    return DistanceBias(
        f"{side}.block.{first}.layer.0.SelfAttention.relative_attention_bias.weight",
        buckets,
        buckets_of(buckets, reach, both_sides=side == "encoder"),
    )


def _mlp(config: Config, prefix: str) -> Mlp:
    kind = config["feed_forward_proj"]
    if not isinstance(kind, str):
        raise invalid("feed_forward_proj", kind)
    usual = "gelu_new" if kind == "gated-gelu" else kind.rpartition("-")[2]
    name = config.get("dense_act_fn", usual)
    is_gated = flag(config, "is_gated_act", kind.startswith("gated-"))
    if not isinstance(name, str):
        raise invalid("dense_act_fn", name)
    if name not in ACTIVATIONS:
        raise NoPlan(name)
    hidden, inner = size(config, "d_model"), size(config, "d_ff")
    inputs = ("wi_0", "wi_1") if is_gated else ("wi",)
    module = f"{prefix}DenseReluDense."
    return Mlp(
        tuple(Linear(f"{module}{one}", inner, hidden) for one in inputs),
        Linear(f"{module}wo", hidden, inner),
        ACTIVATIONS[name],
    )


def _head_scale(config: Config) -> float:
    """T5 1.0, whose head is the embedding, divides what it reads. transformers ties the head of 1.1
    too, so that only a key of its own tells whether it divides; mT5 never does.
    """
    is_tied = flag(config, "tie_word_embeddings", True)
    divides = {"t5": flag(config, "scale_decoder_outputs", is_tied), "umt5": is_tied}
    return size(config, "d_model") ** -0.5 if divides.get(config["model_type"]) else 1.0


def _start(config: Config) -> int:
    start = count(config, "decoder_start_token_id", count(config, "pad_token_id"))
    if start >= size(config, "vocab_size"):
        raise invalid("decoder_start_token_id", start)
    return start


def _norm(config: Config, module: str) -> Norm:
    eps = epsilon(config, "layer_norm_epsilon", 1e-6)
    return Norm(size(config, "d_model"), eps, f"{module}.weight")


def _inner(config: Config, module: str) -> Linear:
    return Linear(module, size(config, "num_heads") * size(config, "d_kv"), size(config, "d_model"))


def _outer(config: Config, module: str) -> Linear:
    return Linear(module, size(config, "d_model"), size(config, "num_heads") * size(config, "d_kv"))
