"""The prepared copy of a model: found, or written when the model is first used."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmchat.engines.checkpoint_files import read_json
from llmchat.errors import IntegrityError, Mismatch, OutOfResources
from llmchat.hub import Checkpoint, CopyRecipe, find_copy, inspect_folder, make_copy, size_of
from llmchat.hub.machine import this_machine
from llmchat.memory_estimate import available_ram, needed
from llmchat.models.locate import Model
from llmchat.models.weight_names import rounded_kind, stored_kind
from llmchat.output.progress import Progress
from llmchat.presets import Preset
from llmchat.settings import Options, World
from llmchat.settings.types import Weights

if TYPE_CHECKING:
    from llmchat.engines.transformers.prepared_checkpoint import Preparation


def recipe(preset: Preset, parts: Sequence[Checkpoint]) -> CopyRecipe:
    """What identifies the prepared copy of a preset. parts: base, then adapters."""
    own = preset.weights == "int4" and not stored_kind(parts[0])
    return CopyRecipe.of(parts[0], parts[1:], preset.adapter_scale, int4=own)


def has_copy(preset: Preset) -> bool:
    """Whether the weights are prepared."""
    return preset.weights in ("int8", "int4")


def find_or_make(
    preset: Preset,
    parts: Sequence[Checkpoint],
    world: World,
    progress: Progress,
    *,
    trust_remote_code: bool = False,
) -> Path:
    """The prepared copy of a model: adapters merged, quantised, ready to be mapped.

    parts: base, then adapters. Raises Mismatch for a model that is not prepared, OutOfResources
    if the disk is full, OSError if the copy cannot be written.
    """
    base, *adapters = parts
    if not has_copy(preset):
        raise Mismatch(f"{preset.weights} weights are not prepared")

    def start() -> "Preparation":
        from llmchat.engines.transformers import compiled
        from llmchat.engines.transformers.prepared_checkpoint import Preparation

        # Compile the CPU step now as well, so that the first question does not wait for it.
        compiled.find_kernels(kernels_folder(world))
        note_rounding(preset, parts, progress)
        folders = [adapter.path for adapter in adapters]
        weights = "int8" if stored_kind(base) else preset.weights
        return Preparation(
            base.path, folders, preset.adapter_scale, trust_remote_code, weights=weights
        )

    return make_copy(recipe(preset, parts), base, start, world, progress)


def copy_to_open(model: Model, options: Options, progress: Progress) -> Path | None:
    """The prepared copy that a load opens; None to load the checkpoint itself.

    A missing copy is written for what a preset names. An adapter of --adapter is merged in memory.
    """
    preset, world, base = model.preset, model.world, model.base
    if world is None or base is None or not has_copy(preset):
        return None
    parts = (base, *model.adapters)
    found = find_copy(recipe(preset, parts), world)
    if found and size_of([found]) > available_ram() and not this_machine(world).gpus:
        progress.note(
            f"note: {preset.name} needs more memory than is free, so parts of it are read from"
            " the disk for every token"
        )
    if found or options.adapter or not fits_memory(base, preset.weights):
        return found
    try:
        trust = options.trust_remote_code
        return find_or_make(preset, parts, world, progress, trust_remote_code=trust)
    except Mismatch:
        # The weights are not prepared, or the adapter does not match: then loading reports it.
        return None
    except (OutOfResources, OSError) as error:
        progress.note(f"note: no prepared copy was written, each start takes longer: {error}")
        return None


def kernels_folder(world: World) -> Path:
    """Where the compiled CPU step is kept."""
    return world.cache / "kernels"


def proof_file(model: Model) -> Path | None:
    """The marker of a model whose answers from the KV cache are those of a cold start.

    It holds for these files and these versions of torch and transformers.
    """
    if model.world is None or model.base is None:
        return None
    made_of = (
        recipe(model.preset, (model.base, *model.adapters)),
        model.preset.weights,
        version("torch"),
        version("transformers"),
    )
    name = hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:16]
    return model.world.cache / "proven" / name


def note_rounding(preset: Preset, parts: Sequence[Checkpoint], progress: Progress) -> None:
    """Note that weights in few bits are rounded to others: those of a kind that does not run here
    as it is, and those of an int8 base that an adapter changes.
    """
    if rounded := rounded_kind(preset, parts[0]):
        to = "int8" if stored_kind(parts[0]) else preset.weights
        progress.note(f"note: the weights are {rounded}; here they are rounded to {to}")
    config = read_json(parts[0].path / "config.json")
    quantised = (config.get("quantization_config") or {}).get("load_in_8bit")
    if quantised and len(parts) > 1:
        progress.note(
            "note: the base is 8-bit already; where the adapter changes it, its weights are"
            " rounded a second time"
        )


def fits_memory(base: Checkpoint, weights: Weights = "int8") -> bool:
    """Whether the model fits the free memory with these weights.

    A larger one gets no copy unasked: its copy would be read from the disk for every token.
    """
    try:
        found = inspect_folder(base)
        stored = found.quantised.stored
        return needed(found.shapes, weights, found.config, stored) <= available_ram()
    except IntegrityError:
        # Loading reports what is wrong with the files.
        return True
