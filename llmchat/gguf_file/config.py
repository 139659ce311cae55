"""The config.json of a GGUF file: llama.cpp's keys in the words of the model's own checkpoint."""

import math
from collections.abc import Callable
from typing import Any

from llmchat.errors import IntegrityError
from llmchat.gguf_file.architectures import ARCHITECTURES, COMMON, Architecture, Facts, plain
from llmchat.gguf_file.header import HINT, GgufHeader
from llmchat.parse_guard import reading, shown

# Name of a tensor → its numbers; for frequencies, which are tensors of float32.
Numbers = Callable[[str], list[float]]
_ENDS = ("eos", "eot", "eom")
# What ends an answer whatever the file names, as in llama.cpp.
_END_MARKS = ("<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>")
_CONTROL = 3
# llama.cpp has at most 512 layers; some lists have an entry for each.
_LAYERS, _MOST_LAYERS, _LONGEST = ("block_count", "decoder_block_count"), 4096, 1 << 16
_LARGEST = 1 << 40


def config_of(header: GgufHeader, numbers: Numbers | None = None) -> dict[str, Any] | None:
    """The config of a model; None for an architecture, or a variant, that is not known here.

    numbers: reads a tensor of rotary factors; without it, as before a download, they are left out.

    Raises IntegrityError for facts that no model has.
    """
    arch = str(header.facts.get("general.architecture"))
    if arch not in ARCHITECTURES:
        return None
    with reading("the header of the GGUF file", IntegrityError, HINT):
        own = _own(header.facts, arch)
        return _config(header, ARCHITECTURES[arch], own, numbers)


def _own(facts: Facts, arch: str) -> dict[str, Any]:
    """The facts of the architecture without its name, and all others in full."""
    named = {name: value for name, value in facts.items() if name.startswith(f"{arch}.")}
    own = {name.removeprefix(f"{arch}."): value for name, value in named.items()}
    for name, value in own.items():
        if not (_is_layers(value) if name in _LAYERS else _is_plausible(value)):
            raise ValueError(f"`{arch}.{shown(name)}` is {shown(repr(value))}")
    return {**facts, **own}


def _is_layers(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST_LAYERS


def _is_plausible(value: Any) -> bool:
    """Layers of Gemma 3n that cut nothing off have -infinity in a list."""
    if isinstance(value, list):
        return len(value) <= _LONGEST and all(
            one == -math.inf or (not isinstance(one, list) and _is_plausible(one)) for one in value
        )
    return isinstance(value, str) or (math.isfinite(value) and abs(value) <= _LARGEST)


def _config(
    header: GgufHeader, known: Architecture, own: Facts, numbers: Numbers | None
) -> dict[str, Any] | None:
    names = {**COMMON, **known.keys}
    found = {ours: plain(own[theirs]) for theirs, ours in names.items() if theirs in own}
    config = {"model_type": known.model_type, **known.fixed, **found, **_tokens(header)}
    if known.is_rotary:
        rope = _rope(own, config, header, numbers)
        config |= {"rope_theta": plain(own.get("rope.freq_base", 10000.0))}
        config |= {"rope_scaling": rope} if rope else {}
    if known.read:
        more = known.read(own, config, header)
        if more is None:
            return None
        config |= more
    return config


def _tokens(header: GgufHeader) -> dict[str, Any]:
    facts, tensors = header.facts, header.tensors
    found: dict[str, Any] = {
        "eos_token_id": _end_ids(facts),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        number = facts.get(f"tokenizer.ggml.{key}_token_id")
        found |= {name: number} if type(number) is int else {}
    if "token_embd.weight" in tensors:
        found["vocab_size"] = tensors["token_embd.weight"].shape[0]
    return found


def _end_ids(facts: Facts) -> list[int]:
    """The end tokens that the file names, then those that are one by their text."""
    named = [facts.get(f"tokenizer.ggml.{name}_token_id") for name in _ENDS]
    tokens, kinds = facts.get("tokenizer.ggml.tokens"), facts.get("tokenizer.ggml.token_type")
    if isinstance(tokens, list) and isinstance(kinds, list):
        marks = [tokens.index(mark) for mark in _END_MARKS if mark in tokens]
        named += [number for number in marks if kinds[number : number + 1] == [_CONTROL]]
    return list(dict.fromkeys(end for end in named if type(end) is int and end >= 0))


def _rope(
    own: Facts, config: dict[str, Any], header: GgufHeader, numbers: Numbers | None
) -> dict[str, Any]:
    """rope_scaling in the words of transformers; {} for none."""
    kind, factor = own.get("rope.scaling.type"), plain(own.get("rope.scaling.factor"))
    trained = own.get("rope.scaling.original_context_length")
    if "rope_factors_long.weight" in header.tensors:
        return _long_rope(own, config, numbers)
    if "rope_freqs.weight" in header.tensors:
        return _frequency_factors(own, config, numbers) if numbers else {}
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn" or not factor:
        return {}
    named = {
        "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow",
        "attention_factor": "yarn_attn_factor",
    }  # fmt: skip
    given = {
        ours: plain(own[f"rope.scaling.{theirs}"])
        for ours, theirs in named.items()
        if f"rope.scaling.{theirs}" in own
    }
    return {
        "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained, **given,
    }  # fmt: skip


def _long_rope(own: Facts, config: dict[str, Any], numbers: Numbers | None) -> dict[str, Any]:
    short, long = (
        [plain(value) for value in numbers(f"rope_factors_{name}.weight")] if numbers else []
        for name in ("short", "long")
    )
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": plain(own.get("rope.scaling.attn_factor")),
        "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
    }


def _frequency_factors(own: Facts, config: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """Llama 3's scaling, whose parameters are not in the file: only what they make of each
    frequency. The published ones are tried; others become factors of each frequency.
    """
    factors = numbers("rope_freqs.weight")
    theta = float(own.get("rope.freq_base", 10000.0))
    largest = plain(max(factors, default=1.0))
    for trained in (8192, 4096, 2048, 1024, 512, 256, 128, 64):
        if _same(llama3_factors(theta, len(factors), largest, trained), factors):
            return {
                "rope_type": "llama3", "factor": largest, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": trained,
            }  # fmt: skip
    return {
        "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": config.get("max_position_embeddings"),
    }  # fmt: skip


def llama3_factors(
    theta: float, count: int, factor: float, trained: int, ends: tuple[float, float] = (1.0, 4.0)
) -> list[float]:
    """What divides each frequency in Llama 3's scaling. ends: the low and the high factor."""
    (low, high), found = ends, []
    for index in range(count):
        wavelength = 2 * math.pi * theta ** (index / count)
        blend = min(1.0, max(0.0, (trained / wavelength - low) / (high - low)))
        found.append(1.0 / (blend + (1.0 - blend) / factor))
    return found


def _same(ours: list[float], theirs: list[float]) -> bool:
    return all(
        math.isclose(one, other, rel_tol=1e-4) for one, other in zip(ours, theirs, strict=True)
    )
