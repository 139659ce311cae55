"""How a model would run on this machine, and the memory that it takes."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from llmchat import memory_estimate
from llmchat.errors import LlmchatError
from llmchat.gguf_file import read_header
from llmchat.hub import Inspection
from llmchat.hub.report import count
from llmchat.hub.weights import kinds_of_gguf
from llmchat.output.formatting import counted
from llmchat.parse_guard import reading
from llmchat.presets import Preset
from llmchat.quantisation.kinds import WeightKind, bits_of

_WHERE = {
    "compiled": "in the compiled step",
    "cuda": "in llmchat's kernels for CUDA",
    "torch": "in torch",
    "modules": "in transformers' modules",
}


class Running(Struct, frozen=True):
    """How a model is stored, and how it would run here."""

    kinds: tuple[WeightKind, ...] = ()
    """Its tensors by kind of numbers, the most weights first."""
    bits: float = 0
    """Bits a weight in its files, scales included; 0 if unknown."""
    runs: str = ""
    """How it would run on this machine; empty if unknown."""
    memory: int = 0
    """Bytes that it takes with the preset's context; 0 if unknown."""


def running(preset: Preset, base: Inspection | None) -> Running:
    """base: of its files, where they are here. Loads torch to choose as the engine does."""
    if preset.base.repo.endswith(".gguf") and Path(preset.base.repo).is_file():
        return _of_gguf(preset, base)
    if base is None:
        return Running()
    kinds = base.quantised.kinds
    if base.quantised.refused[0]:
        return Running(kinds, bits_of(kinds), f"it does not run: {base.quantised.refused[0]}")
    if preset.kind != "chat":
        return Running(kinds, bits_of(kinds), "float32")
    return Running(kinds, bits_of(kinds), *_way(preset, base))


def kind_lines(kinds: Sequence[WeightKind]) -> list[str]:
    """A table: kind, tensors, weights and bits a weight."""
    rows = [
        (kind.kind, counted(kind.tensors, "tensor"), count(kind.weights), f"{kind.bits:.2f} bits")
        for kind in kinds
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{kind:{widths[0]}}  {tensors:>{widths[1]}}  {weights:>{widths[2]}}  {bits:>{widths[3]}}"
        for kind, tensors, weights, bits in rows
    ]


def _of_gguf(preset: Preset, base: Inspection | None) -> Running:
    kinds = kinds_of_gguf(read_header(Path(preset.base.repo)))
    if preset.engine == "gguf":
        return Running(kinds, bits_of(kinds), "llama.cpp computes with its own numbers")
    return Running(kinds, bits_of(kinds), *(_way(preset, base) if base else ("", 0)))


def _way(preset: Preset, base: Inspection) -> tuple[str, int]:
    from llmchat.engines.transformers.loading import device_named
    from llmchat.engines.transformers.ways import way_of

    try:
        with reading("config.json"):
            way = way_of(base.config, preset.weights, device_named("auto"))
    except LlmchatError as error:
        return f"it does not run: {error.message}", 0
    has_own = bool(base.quantised.stored) and way == "compiled"
    numbers = _numbers(preset, base, has_own=has_own)
    return f"{numbers} {_WHERE[way]}", _memory(preset, base, has_own=has_own)


def _numbers(preset: Preset, base: Inspection, *, has_own: bool) -> str:
    if has_own and preset.weights in ("int8", "int4"):
        return f"its own numbers ({base.quantised.kind})"
    return f"dequantised, then {preset.weights}" if base.quantised.kind else preset.weights


def _memory(preset: Preset, base: Inspection, *, has_own: bool) -> int:
    stored = base.quantised.stored if has_own else {}
    tokens = preset.context.tokens or memory_estimate.own_context(base.config)
    needed = memory_estimate.needed(base.shapes, preset.weights, base.config, stored)
    return needed + memory_estimate.kv_bytes(base.config, tokens, preset.kv)
