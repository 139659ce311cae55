"""Settles what a preset leaves open for a GGUF file: its place, its engine, its defaults."""

from pathlib import Path

from msgspec.structs import replace

from llmchat.errors import ModelNotFound
from llmchat.hub import canonical, gguf_here, only_variant
from llmchat.models.gguf_summary import LLAMA_CPP, OWN, engine_note, summary_of
from llmchat.models.stored_defaults import with_stored
from llmchat.presets import Preset
from llmchat.settings import World

AUTO = "auto"


def settled(preset: Preset, world: World) -> tuple[Preset, tuple[str, ...]]:
    """The preset with an engine for its GGUF file, and notes for the user.

    Raises Mismatch where no engine here runs the file; ModelNotFound as `hub.canonical`.
    """
    preset = named(preset, world)
    if not preset.base.is_gguf:
        return preset, ()
    preset, left_out = with_stored(preset, world)
    notes = (f"note: {preset.name}: left out: {', '.join(left_out)}",) if left_out else ()
    if preset.engine != AUTO:
        return preset, notes
    engine, why = _engine(preset, world)
    return replace(preset, engine=engine), (*notes, *why)


def named(preset: Preset, world: World) -> Preset:
    """The preset with the file of a GGUF repo under the name that it has on this machine."""
    base, is_bare = preset.base, preset.name == preset.base.name
    found = (
        canonical(base, world, cached=True)
        if base.variant or not is_bare
        else only_variant(base, world)
    )
    if found == base:
        return preset
    return replace(
        preset,
        base=found,
        name=found.name if is_bare else preset.name,
        engine=AUTO if preset.engine == OWN and not base.variant else preset.engine,
    )


def _engine(preset: Preset, world: World) -> tuple[str, tuple[str, ...]]:
    """Our engine where the family has a plan, else llama.cpp, which a note says."""
    try:
        file = Path(gguf_here(preset.base, world).repo)
    except ModelNotFound:
        if preset.base.kind != "hub":
            raise
        # Locating the files reports how to pull them.
        return OWN, ()
    if not file.is_file():
        return OWN, ()
    if any(adapter.is_gguf for adapter in preset.adapters):
        return LLAMA_CPP, (f"note: {preset.name}: runs in llama.cpp, for its adapter in GGUF",)
    found = summary_of(file, world)
    if found.problem and found.is_model and preset.base.kind == "path":
        # transformers may know how to dequantise it.
        return OWN, ()
    notes = (f"note: {engine_note(found)}",) if found.engine == LLAMA_CPP else ()
    return found.engine, notes
