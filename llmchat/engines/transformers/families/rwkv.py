"""RWKV-4 (Peng et al. 2023): no attention, and a state of a few vectors."""

from llmchat.engines.transformers.families.blocks import Linear, Norm, RwkvChannel, RwkvTime
from llmchat.engines.transformers.families.config_values import Config, epsilon, size
from llmchat.engines.transformers.families.parts import model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step


def plan(config: Config) -> Plan | None:
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    if size(config, "attention_hidden_size", hidden) != hidden:
        return None
    layers = [_layer(config, index) for index in range(size(config, "num_hidden_layers"))]
    return model(
        config,
        layers,
        # transformers builds this one without the config's epsilon.
        Norm(hidden, 1e-5, "rwkv.ln_out.weight", "rwkv.ln_out.bias", "layer"),
        embedding=Embedding("rwkv.embeddings.weight", norm=_norm(config, "rwkv.blocks.0.pre_ln")),
        head=Head(Linear("head", vocabulary, hidden)),
    )


def _layer(config: Config, index: int) -> Layer:
    prefix = f"rwkv.blocks.{index}."
    return sequential(
        Step(_time(config, f"{prefix}attention."), _norm(config, f"{prefix}ln1")),
        Step(_channel(config, f"{prefix}feed_forward."), _norm(config, f"{prefix}ln2")),
    )


def _time(config: Config, prefix: str) -> RwkvTime:
    width = size(config, "hidden_size")
    key, value, receptance, output = (
        Linear(f"{prefix}{name}", width, width) for name in ("key", "value", "receptance", "output")
    )
    mixes = tuple(f"{prefix}time_mix_{name}" for name in ("key", "value", "receptance"))
    return RwkvTime(
        key, value, receptance, output, width,
        f"{prefix}time_decay", f"{prefix}time_first", (mixes[0], mixes[1], mixes[2]),
    )  # fmt: skip


def _channel(config: Config, prefix: str) -> RwkvChannel:
    width = size(config, "hidden_size")
    inner = size(config, "intermediate_size", 4 * width)
    return RwkvChannel(
        Linear(f"{prefix}key", inner, width),
        Linear(f"{prefix}value", width, inner),
        Linear(f"{prefix}receptance", width, width),
        width,
        (f"{prefix}time_mix_key", f"{prefix}time_mix_receptance"),
    )


def _norm(config: Config, name: str) -> Norm:
    width, small = size(config, "hidden_size"), epsilon(config, "layer_norm_epsilon", 1e-5)
    return Norm(width, small, f"{name}.weight", f"{name}.bias", "layer")
