"""How a model would run on this machine, and the memory that it takes."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llmchat import memory_estimate
from llmchat.errors import LlmchatError, ModelNotFound
from llmchat.gguf_file import read_header
from llmchat.hub import Checkpoint, Inspection, gguf_here, inspect_folder
from llmchat.hub.gguf_folder import inspect_header
from llmchat.hub.report import count
from llmchat.models.engine_choice import settled
from llmchat.output.formatting import counted
from llmchat.parse_guard import reading
from llmchat.presets import Preset
from llmchat.quantisation.kinds import WeightKind, bits_of
from llmchat.settings import World

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
    weights: str = ""
    """The kind of weights that it would use."""


def running(preset: Preset, base: Inspection | None, world: World) -> Running:
    """base: see `inspected`. Loads torch to choose as the engine does."""
    if base is None:
        return Running(weights=preset.weights)
    kinds = base.quantised.kinds
    found = Running(kinds, bits_of(kinds), weights=preset.weights)
    if base.quantised.refused[0]:
        return _refused(found, base.quantised.refused[0])
    if preset.kind != "chat":
        return replace(found, runs="float32")
    try:
        engine = settled(preset, world)[0].engine if preset.base.is_gguf else preset.engine
        if engine == "gguf":
            return replace(found, runs="its own numbers in llama.cpp", weights=base.quantised.kind)
        return _in_our_engine(found, preset, base)
    except LlmchatError as error:
        return _refused(found, error.message)


def inspected(preset: Preset, base: Checkpoint | None, world: World) -> Inspection | None:
    """What the files of a model tell, or the header of a GGUF file that is not opened yet; None for
    files that are not here.
    """
    if base is not None and preset.engine != "gguf":
        return inspect_folder(base)
    if not preset.base.is_gguf:
        return None
    try:
        file = Path(gguf_here(preset.base, world).repo)
    except ModelNotFound:
        return None
    if not file.is_file():
        return None
    # For a damaged file, this raises what is wrong with it.
    read_header(file)
    config, shapes, quantised = inspect_header(file)
    return Inspection(preset.base, config=config, shapes=shapes, quantised=quantised)


def _refused(found: Running, why: str) -> Running:
    return replace(found, runs=f"it does not run: {why}")


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


def _in_our_engine(found: Running, preset: Preset, base: Inspection) -> Running:
    """Raises Mismatch for a config.json that no executor runs."""
    from llmchat.engines.transformers.loading import device_named
    from llmchat.engines.transformers.ways import way_of

    kind = base.quantised.kind
    has_own = bool(base.quantised.stored) and preset.weights in ("int8", "int4")
    asked = "int8" if has_own else preset.weights
    with reading("config.json"):
        way = way_of(base.config, asked, device_named("auto"))
    has_own = has_own and way == "compiled"
    numbers = f"dequantised, then {preset.weights}" if kind else preset.weights
    return replace(
        found,
        runs=f"{f'its own numbers ({kind})' if has_own else numbers} {_WHERE[way]}",
        memory=_memory(preset, base, has_own=has_own),
        weights=kind if has_own else preset.weights,
    )


def _memory(preset: Preset, base: Inspection, *, has_own: bool) -> int:
    stored = base.quantised.stored if has_own else {}
    tokens = preset.context.tokens or memory_estimate.own_context(base.config)
    needed = memory_estimate.needed(base.shapes, preset.weights, base.config, stored)
    return needed + memory_estimate.kv_bytes(base.config, tokens, preset.kv)
