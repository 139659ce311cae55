"""What is known of one model: its preset's facts, and those of its files where they are here."""

from msgspec import UNSET, Struct, UnsetType

from llmchat.errors import ModelNotFound
from llmchat.hub import Checkpoint, find, find_copy, last_used, licence_of, size_of, survey_here
from llmchat.memory_estimate import own_context, parameters
from llmchat.models.loading import recipe, sources
from llmchat.presets import ContextPolicy, Preset
from llmchat.settings import World
from llmchat.settings.sampling import Sampling


class PreparedCopy(Struct, frozen=True, omit_defaults=True):
    """The int8 copy of a model; without fields where there is none."""

    folder: str = ""
    size: int = 0


class ModelFacts(Struct, frozen=True):
    """What `llmchat show MODEL --json` prints."""

    name: str
    title: str
    parameters: float
    weights: str
    context: ContextPolicy
    sampling: Sampling
    licence: str
    notes: str
    tested: str
    trained_context: int | UnsetType
    prepared: PreparedCopy
    base: str
    adapters: tuple[str, ...]
    format: str
    template: str
    pulled: bool
    used: float | None
    folders: tuple[str, ...]
    files: dict[str, int]


def model_facts(preset: Preset, world: World) -> ModelFacts:
    """The facts of a preset; where it is pulled, its files add what the preset leaves open."""
    try:
        parts = [find(source, world) for source in sources(preset)]
    except ModelNotFound:
        parts = []
    base = survey_here(parts[0]) if parts else None
    return ModelFacts(
        name=preset.name,
        title=preset.title,
        parameters=preset.parameters or (parameters(base.shapes) if base else preset.parameters),
        weights=preset.weights,
        context=preset.context,
        sampling=preset.sampling,
        licence=_licence(preset, parts, world),
        notes=preset.notes,
        tested=preset.tested,
        trained_context=own_context(base.config) if base else UNSET,
        prepared=_prepared_copy(preset, parts, world),
        base=str(preset.base),
        adapters=tuple(map(str, preset.adapters)),
        format=preset.format.name,
        template="of the preset" if preset.format.parts else "of the checkpoint",
        pulled=bool(parts),
        used=last_used(preset.name, world),
        folders=tuple(str(part.path) for part in parts),
        files=_files(parts),
    )


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
