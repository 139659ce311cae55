"""Facts about one model, from its preset and from its files if they are here."""

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from llmchat.errors import ModelNotFound
from llmchat.hub import (
    STORES,
    Checkpoint,
    Inspection,
    find,
    find_copy,
    gguf_here,
    last_used,
    licence_of,
    size_of,
    unpack_quickly,
)
from llmchat.memory_estimate import own_context, parameters
from llmchat.models.engine_choice import named
from llmchat.models.locate import sources
from llmchat.models.prepared_copy import recipe
from llmchat.models.running import inspected, running
from llmchat.models.stored_defaults import with_stored
from llmchat.presets import ContextPolicy, Preset, Source
from llmchat.quantisation.kinds import WeightKind
from llmchat.settings import World
from llmchat.settings.sampling import Sampling


class PreparedCopy(Struct, frozen=True, omit_defaults=True):
    """The prepared copy of a model; without fields where there is none."""

    folder: str = ""
    """Where it is."""
    size: int = 0
    """Its bytes."""


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What `llmchat show MODEL --json` prints."""

    name: str
    """Name of the preset."""
    title: str
    """Name of the model, for people."""
    parameters: float
    """Number of parameters; 0 if unknown."""
    weights: str
    """Kind of weights it is used with."""
    context: ContextPolicy
    """How conversations are fitted into its window."""
    sampling: Sampling
    """Its sampling defaults."""
    sampling_source: str
    """Where its sampling was published."""
    licence: str
    """Its licence."""
    source: str
    """Where repo, licence, window and stop ids were read."""
    unread: tuple[str, ...]
    """Facts that were read nowhere, and are from memory."""
    notes: str
    """What to know about it."""
    tested: str
    """What was run with its published weights, and when."""
    trained_context: int | UnsetType = UNSET
    """Tokens it was trained for; absent if unknown."""
    prepared: PreparedCopy
    """Its prepared copy; `{}` if there is none."""
    kinds: tuple[WeightKind, ...]
    """Its tensors by kind of numbers; empty if its files are not here."""
    bits: float
    """Bits a weight in its files, scales included; 0 if unknown."""
    runs: str
    """How it would run on this machine; empty if unknown."""
    memory: int
    """Bytes that it takes with its context; 0 if unknown."""
    base: str
    """Source of the base."""
    adapters: tuple[str, ...]
    """Sources of the adapters."""
    format: str
    """Name of the prompt format."""
    template: str
    """Whose template it uses: `of the preset` or `of the checkpoint`."""
    pulled: bool
    """Whether its files are on this machine."""
    used: float | None
    """When it was last used, seconds since 1970."""
    folders: tuple[str, ...]
    """Folders of base and adapters."""
    files: dict[str, int]
    """Source and name → bytes of each file."""


def model_facts(preset: Preset, world: World) -> ModelFacts:
    """The facts of a preset; where it is pulled, its files add what the preset leaves open."""
    preset, left_out = with_stored(named(preset, world), world)
    try:
        parts = [_found(source, world) for source in sources(preset)]
    except ModelNotFound:
        parts = []
    base = inspected(preset, parts[0] if parts else None, world)
    way = running(preset, base, world)
    return ModelFacts(
        name=preset.name,
        title=preset.title,
        parameters=preset.parameters or (parameters(base.shapes) if base else preset.parameters),
        weights=way.weights,
        context=preset.context,
        sampling=preset.sampling,
        sampling_source=preset.sampling_source,
        licence=_licence(preset, parts, world),
        source=preset.source,
        unread=preset.unread,
        notes="; ".join(filter(None, (preset.notes, _not_used(left_out)))),
        tested=preset.tested,
        trained_context=_trained_context(preset, base),
        prepared=_prepared_copy(preset, parts, world),
        kinds=way.kinds,
        bits=round(way.bits, 2),
        runs=way.runs,
        memory=way.memory,
        base=str(preset.base),
        adapters=tuple(map(str, preset.adapters)),
        format=preset.format.name,
        template="of the preset" if preset.format.is_written else "of the checkpoint",
        pulled=bool(parts),
        used=last_used(preset.name, world),
        folders=tuple(str(part.path) for part in parts),
        files=_files(parts),
    )


def _not_used(left_out: Sequence[str]) -> str:
    return f"left out of what ollama stores: {', '.join(left_out)}" if left_out else ""


def _found(source: Source, world: World) -> Checkpoint:
    """The checkpoint of a source; what describes another program's GGUF file is made if needed."""
    try:
        return find(source, world)
    except ModelNotFound:
        if source.kind in STORES and unpack_quickly(gguf_here(source, world), world):
            return find(source, world)
        raise


def _trained_context(preset: Preset, base: Inspection | None) -> int | UnsetType:
    """What the checkpoint tells; before it is pulled, what the preset does."""
    if base:
        return own_context(base.config)
    return preset.trained_context or UNSET


def _licence(preset: Preset, parts: list[Checkpoint], world: World) -> str:
    if preset.licence != "unknown" or not parts:
        return preset.licence
    return licence_of(parts[0], world) or "unknown"


def _prepared_copy(preset: Preset, parts: list[Checkpoint], world: World) -> PreparedCopy:
    copy = find_copy(recipe(preset, parts), world) if parts else None
    return PreparedCopy(str(copy), size_of([copy])) if copy else PreparedCopy()


def _files(parts: list[Checkpoint]) -> dict[str, int]:
    """The bytes of every file, by source and name."""
    return {
        f"{part.source}/{path.name}": path.stat().st_size
        for part in parts
        for path in sorted(part.path.iterdir())
        if path.is_file()
    }
