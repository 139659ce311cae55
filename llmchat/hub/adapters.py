"""Check whether a LoRA adapter fits a base, from configs and tensor shapes alone.

The engine checks again when it loads; this check comes before gigabytes are fetched. Early adapters
name repos that no longer exist, and many were saved empty (443 bytes): older libraries loaded those
as an untrained model.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from llmchat.errors import Mismatch
from llmchat.hub.headers import Shapes

# Repos that no longer exist, or are copies → the repo with the same weights.
SAME = {
    f"{org}/llama-{size}{suffix}": f"huggyllama/llama-{size}"
    for size in ("7b", "13b", "30b", "65b")
    for org, suffix in (
        ("decapoda-research", "-hf"),
        ("yahma", "-hf"),
        ("elinas", "-hf-transformers-4.29"),
        ("jeffwan", "-hf"),
    )
}
# Bases that were never published: a base with an adapter merged into it.
MERGED = {"trl-lib/llama-se-merged": ("huggyllama/llama-7b", "trl-lib/llama-7b-se-peft")}
# A smaller file holds only the frame of a pickle or of safetensors.
_FRAME = 2_000
# `lora_A.weight` for a linear layer, `lora_embedding_A` for an embedding; an adapter's name may
# follow.
_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)"
    r"\.lora_(?:(?P<side>[AB])(?:\.\w+)?\.weight|embedding_(?P<table>[AB])(?:\.\w+)?)$"
)
_NOT_PLAIN = (
    "use_dora",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)
_TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in")
_SELECTING = ("layers_to_transform", "layers_pattern", "exclude_modules")


class AdapterFacts(Struct, frozen=True):
    """An adapter, and how it relates to its base."""

    name: str
    """The adapter's source."""
    trained_on: str
    """The base it names."""
    match: str
    """How it matches the base."""
    rank: int = 0
    """LoRA rank."""
    alpha: float = 0
    """LoRA alpha."""
    targets: tuple[str, ...] = ()
    """Linear layers that it changes."""
    tensors: int = 0
    """Number of tensors; 0 if not seen yet."""


def check(
    name: str,
    config: Mapping[str, Any],
    shapes: Shapes,
    size: int,
    base: str,
    before: Sequence[str],
    base_shapes: Shapes,
) -> AdapterFacts:
    """Return facts about the adapter. Raises Mismatch when it cannot fit the base.

    shapes: {} while unknown; `size`, the bytes of its file, is then checked instead; base_shapes:
    {} when only a download would show them; before: repos of the adapters applied before it.
    """
    trained_on = str(config.get("base_model_name_or_path") or "")
    match = match_of_name(trained_on, base, before, name)
    facts = AdapterFacts(
        name,
        trained_on,
        match,
        int(config.get("r") or 0),
        float(config.get("lora_alpha") or 0),
        _targets(config),
        len(shapes),
    )
    if config.get("peft_type", "LORA") != "LORA":
        return facts
    if shapes:
        modules = _modules(name, config, shapes)
        if base_shapes and modules:
            _check_shapes(name, trained_on, config, modules, base_shapes)
            _check_complete(name, config, modules, base_shapes)
        if base_shapes:
            _check_vocabulary(name, shapes, base_shapes)
    else:
        _check_size(name, config, size, base_shapes)
    return facts


def match_of_name(
    trained_on: str, base: str, before: Sequence[str], name: str = "the adapter"
) -> str:
    """Describe how the base that an adapter names relates to `base`.

    Raises Mismatch where another adapter must be applied first and is not.
    """
    if trained_on in MERGED:
        root, first = MERGED[trained_on]
        if first not in before:
            raise Mismatch(
                f"{name} was trained on {trained_on}, which is {root} with {first} merged",
                f"apply {first} before it",
            )
        return f"{trained_on} is {root} with {first}"
    if not trained_on:
        return "it does not name its base"
    if trained_on == base:
        return "the same repo"
    if SAME.get(trained_on.lower(), trained_on) == SAME.get(base.lower(), base):
        return f"{trained_on} is the same model as {base}"
    if trained_on.rpartition("/")[2].lower() == base.rpartition("/")[2].lower():
        return f"{trained_on}: another repo with the same name"
    return f"it was trained on {trained_on}: not known to be {base}"


def shapes_of_config(config: Mapping[str, Any]) -> Shapes:
    """The tensor shapes of a Llama-like base, computed from its config; {} for other models.

    For checkpoints whose files show their shapes only after a download.
    """
    if config.get("model_type") not in ("llama", "mistral") or not all(
        isinstance(config.get(key), int)
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
        )
    ):
        return {}
    width, inner, heads = (
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"],
    )
    head_dim = config.get("head_dim") or width // heads
    keys = (config.get("num_key_value_heads") or heads) * head_dim
    layer = {
        "self_attn.q_proj": (heads * head_dim, width), "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, heads * head_dim),
        "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner), "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }  # fmt: skip
    shapes = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    table = (config["vocab_size"], width)
    head = {} if config.get("tie_word_embeddings") else {"lm_head.weight": table}
    return {"model.embed_tokens.weight": table, **shapes, "model.norm.weight": (width,), **head}


def _modules(
    name: str, config: Mapping[str, Any], shapes: Shapes
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Module → shapes of A [rank, in] and B [out, rank].

    An embedding [vocab, hidden] has A [rank, vocab] and B [hidden, rank].
    """
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        match = _KEY.match(key)
        if match:
            sides.setdefault(match["module"], {})[match["side"] or match["table"]] = shape
    whole = {module: (pair["A"], pair["B"]) for module, pair in sides.items() if len(pair) == 2}
    if len(whole) < len(sides):
        half = next(module for module, pair in sides.items() if len(pair) == 1)
        raise Mismatch(f"the adapter {name} is incomplete: `{half}` has one of its two matrices")
    if not whole and not any(config.get(key) for key in _NOT_PLAIN):
        raise _empty(name)
    return whole


def _empty(name: str) -> Mismatch:
    return Mismatch(
        f"the adapter {name} is empty: it holds no LoRA matrices",
        "its training did not save them; use another revision or another adapter",
    )


def _check_shapes(
    name: str,
    trained_on: str,
    config: Mapping[str, Any],
    modules: Mapping[str, Any],
    base_shapes: Shapes,
) -> None:
    hint = f"it was trained on {trained_on or 'another base'}"
    for module, (a, b) in modules.items():
        shape = _weight(module, base_shapes) or (
            _embedding(base_shapes) if module.endswith("lm_head") else None
        )
        if shape is None:
            raise Mismatch(
                f"the adapter {name} changes `{module}`, which the base model does not have", hint
            )
        if len(a) != 2 or len(b) != 2 or len(shape) != 2:
            # Convolutions and trained embeddings are checked by peft.
            continue
        wanted = (b[0], a[1])
        turned = (
            wanted[::-1] if config.get("fan_in_fan_out") or module.endswith(_TABLES) else wanted
        )
        if shape not in (wanted, turned):
            raise Mismatch(
                f"the adapter {name} is for a base whose `{module}` is {wanted[0]} x {wanted[1]};"
                f" here it is {shape[0]} x {shape[1]}",
                hint,
            )
        if a[0] != b[1]:
            raise Mismatch(
                f"the adapter {name} is damaged: the two matrices of `{module}` have ranks {a[0]}"
                f" and {b[1]}"
            )


def _weight(module: str, base_shapes: Shapes) -> tuple[int, ...] | None:
    """The shape of the base's tensor for a module; some checkpoints have another first part."""
    rest = module.partition(".")[2]
    for name in (module, rest, f"model.{module}", f"transformer.{module}", f"backbone.{rest}"):
        if f"{name}.weight" in base_shapes:
            return base_shapes[f"{name}.weight"]
    return None


def _embedding(base_shapes: Shapes) -> tuple[int, ...] | None:
    """The shape of the embedding: that of the output head where the two are tied."""
    return next(
        (
            shape
            for name, shape in base_shapes.items()
            if name.removesuffix(".weight").endswith(_TABLES)
        ),
        None,
    )


def _check_complete(
    name: str, config: Mapping[str, Any], modules: Mapping[str, Any], base_shapes: Shapes
) -> None:
    """Raise Mismatch unless each layer and target that the config names has its two tensors."""
    wanted = _wanted(config, base_shapes)
    if wanted and len(modules) < len(wanted):
        raise Mismatch(
            f"the adapter {name} is incomplete: {2 * len(modules)} tensors, but its config names"
            f" {2 * len(wanted)}",
            "use another revision or another adapter",
        )


def _wanted(config: Mapping[str, Any], base_shapes: Shapes) -> list[str]:
    """The base's modules that an adapter's config names; [] where names alone do not tell."""
    targets = _targets(config)
    if not targets or any(config.get(key) for key in _SELECTING):
        return []
    modules = [
        key.removesuffix(".weight")
        for key, shape in base_shapes.items()
        if key.endswith(".weight") and len(shape) == 2
    ]
    return [
        module
        for module in modules
        if any(module == target or module.endswith(f".{target}") for target in targets)
    ]


def _check_size(name: str, config: Mapping[str, Any], size: int, base_shapes: Shapes) -> None:
    """Raise Mismatch for a file too small for its matrices in 8 bits, its least."""
    rank = int(config.get("r") or 0)
    shapes = (
        [base_shapes[f"{module}.weight"] for module in _wanted(config, base_shapes)]
        if not config.get("rank_pattern")
        else []
    )
    least = sum(rank * (out + inner) for out, inner in shapes)
    if size < _FRAME and (size < least or not least):
        raise _empty(f"{name} ({size} bytes)")
    if size < least:
        raise Mismatch(
            f"the adapter {name} is incomplete: {size:,} bytes, but rank {rank} and its targets"
            f" need at least {least:,}",
            "use another revision or another adapter",
        )


def _check_vocabulary(name: str, shapes: Shapes, base_shapes: Shapes) -> None:
    for part in ("embed_tokens", "lm_head", "wte"):
        ours = next(
            (shape for key, shape in base_shapes.items() if key.endswith(f"{part}.weight")), None
        )
        theirs = next(
            (
                shape
                for key, shape in shapes.items()
                if re.search(rf"(^|\.){part}(\.\w+)*\.weight$", key) and "lora_" not in key
            ),
            None,
        )
        if ours and theirs and ours[0] != theirs[0]:
            raise Mismatch(
                f"the adapter {name} has a vocabulary of {theirs[0]:,} tokens; the base has"
                f" {ours[0]:,}",
                "it was made for another base",
            )


def _targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    targets = config.get("target_modules")
    return tuple(sorted(map(str, targets))) if isinstance(targets, list) else ()
