"""What a checkpoint of the Llama family must hold: every tensor's shape, checked against config.json before one is read.

The forward passes, above all the compiled one, rely on these shapes and do not check them again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llmchat.errors import IntegrityError, Mismatch

Shapes = Mapping[str, tuple[int, ...]]

# Beyond any model, and within what 32 bits can count.
_MOST = 2**31 - 1
_EMBEDDING, _HEAD, _NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
# The embeddings of other families.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "shared.weight",
    "embeddings.weight",
)
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class Dimensions(NamedTuple):
    """The numbers of a config.json that decide shapes; all of them are positive."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Dimensions":
        """Raises Mismatch for numbers that no model can have."""
        hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
        kv_heads = (
            _number(config, "num_key_value_heads")
            if config.get("num_key_value_heads") is not None
            else heads
        )
        dim = _number(config, "head_dim") if config.get("head_dim") is not None else hidden // heads
        if heads % kv_heads or dim < 2 or dim % 2:
            raise Mismatch(
                f"config.json cannot be right: {heads} heads of {dim} numbers share {kv_heads} heads of keys"
            )
        inner, vocabulary = _number(config, "intermediate_size"), _number(config, "vocab_size")
        return cls(
            _number(config, "num_hidden_layers"), hidden, heads, kv_heads, dim, inner, vocabulary
        )

    def linears(self) -> dict[str, tuple[int, int]]:
        """The linears of a layer, in the order in which they are used: [out, in]."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, inner = self.hidden, self.inner
        shapes = ((queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries))
        attention = {
            f"self_attn.{name}": shape for name, shape in zip(_ATTENTION, shapes, strict=True)
        }
        shapes = (inner, hidden), (inner, hidden), (hidden, inner)  # type: ignore[assignment]
        return attention | {f"mlp.{name}": shape for name, shape in zip(_MLP, shapes, strict=False)}


def check_config(config: Mapping[str, Any]) -> Dimensions:
    """The dimensions, and whether the other numbers that the forward passes use can be right. Raises Mismatch."""
    dimensions = Dimensions.of(config)
    epsilon = config.get("rms_norm_eps", 1e-6)
    if not _is_real(epsilon) or epsilon < 0:
        raise _wrong("rms_norm_eps", epsilon)
    return dimensions


def check_tensors(config: Mapping[str, Any], shapes: Shapes) -> Dimensions:
    """Raise IntegrityError unless the tensors are those that the config tells of. Ends at the first that is wrong."""
    dimensions = check_config(config)
    if dimensions.layers > len(shapes):
        # Before anything is made for each of the layers.
        raise Mismatch(
            f"config.json has {dimensions.layers:,} layers; the weights are {len(shapes):,} tensors"
        )
    for name, shape in _expected(dimensions):
        check_shape(name, shapes.get(name), shape)
        bias = f"{name.removesuffix('weight')}bias"
        if bias in shapes:
            check_shape(bias, shapes[bias], shape[:1])
        elif (like := bias.replace("k_proj", "q_proj").replace("v_proj", "q_proj")) in shapes:
            # The three are used as one matrix.
            raise IntegrityError(f"the weights have `{like}` and no `{bias}`", _HINT)
    if _HEAD in shapes:
        check_shape(_HEAD, shapes[_HEAD], (dimensions.vocabulary, dimensions.hidden))
    return dimensions


def vocabulary_of(shapes: Shapes) -> int:
    """Rows of the input embedding, whatever the architecture calls it; 0 where it is not known by its name."""
    return next(
        (
            shape[0]
            for name, shape in shapes.items()
            if len(shape) == 2 and name.endswith(_EMBEDDINGS)
        ),
        0,
    )


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raise Mismatch for no token at all, or one that the embedding has no row for. vocabulary: 0 for any."""
    if not ids:
        raise Mismatch("the prompt is empty: neither template nor tokenizer makes a token of it")
    wrong = (
        next((token for token in ids if token < 0 or token >= vocabulary), None)
        if vocabulary
        else None
    )
    if wrong is not None:
        raise Mismatch(
            f"the tokenizer gives token {wrong:,}; the model knows {vocabulary:,} tokens",
            "tokenizer and weights are not of the same model, or tokens were added and the weights not resized",
        )


def check_shape(name: str, shape: tuple[int, ...] | None, wanted: tuple[int, ...]) -> None:
    if shape is None:
        raise IntegrityError(f"the weights have no `{name}`, which config.json tells of", _HINT)
    if tuple(shape) != wanted:
        raise IntegrityError(
            f"the tensor `{name}` is {_times(shape)}; config.json makes it {_times(wanted)}", _HINT
        )


_HINT = "config.json and weights must be of the same model; `llmchat verify` checks what was pulled"


def _expected(dimensions: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = dimensions.hidden
    yield _EMBEDDING, (dimensions.vocabulary, hidden)
    yield _NORM, (hidden,)
    for layer in range(dimensions.layers):
        prefix = f"model.layers.{layer}."
        yield f"{prefix}input_layernorm.weight", (hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (hidden,)
        for name, shape in dimensions.linears().items():
            yield f"{prefix}{name}.weight", shape


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST:
        raise _wrong(name, value)
    return value


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: Any) -> Mismatch:
    text = repr(value)
    return Mismatch(
        f"config.json has no usable `{name}`: {text if len(text) <= 40 else text[:40] + '…'}"
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
