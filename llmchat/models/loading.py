"""From a located model to its tokenizer, or to an engine with the model in memory.

The only module that names the engines.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmchat import plugins
from llmchat.engines import Engine
from llmchat.engines.capabilities import TakesAdapters, unwrap
from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import IntegrityError, Mismatch, UsageError
from llmchat.hub import Checkpoint, drop
from llmchat.models import external
from llmchat.models.drafting import draft_of
from llmchat.models.locate import Model, title
from llmchat.models.prepared_copy import (
    copy_to_open,
    fits_memory,
    kernels_folder,
    note_rounding,
    proof_file,
)
from llmchat.models.weight_names import is_packed, stored_kind, weights_in_use
from llmchat.output.progress import NoProgress, Progress
from llmchat.presets import Preset
from llmchat.settings import Options, World
from llmchat.settings.types import Weights

if TYPE_CHECKING:
    from llmchat.engines.transformers import TransformersEngine


def tokenizer(model: Model) -> Tokenizer:
    """The model's tokenizer alone: no weights are read."""
    if model.base is None:
        raise UsageError(f"the engine `{model.preset.engine}` has no tokenizer")
    if model.preset.engine == "gguf":
        from llmchat.engines.gguf import GgufEngine

        engine = _gguf(model, Options(device="cpu"), NoProgress())
        assert isinstance(engine, GgufEngine)
        return engine.tokens
    return Tokenizer(model.base.path)


def load(model: Model, options: Options, progress: Progress | None = None) -> Engine:
    """An engine with the model in memory; the time of use is recorded.

    progress: receives notes for the user.
    """
    progress = progress or NoProgress()
    for note in model.notes:
        progress.note(note)
    open_engine = _ENGINES.get(model.preset.engine, _of_plugin)
    engine = open_engine(model, options, progress)
    model.used()
    return engine


def adapt(
    engine: Engine, loaded: Model, options: Options, wanted: Model, wanted_options: Options
) -> bool:
    """Replace the adapters of a loaded model by those of another preset, without reloading.

    Returns False where that cannot be done, and the other model must be loaded.
    """
    running = unwrap(engine)
    if not isinstance(running, TakesAdapters) or loaded.base != wanted.base:
        return False
    if options.device != wanted_options.device or any(
        getattr(loaded.preset, name) != getattr(wanted.preset, name) for name in _FIXED
    ):
        return False
    paths = [adapter.path for adapter in wanted.adapters]
    scales = external.adapter_scales(wanted.preset, len(paths))
    try:
        running.adapt(list(zip(paths, scales, strict=True)), title(wanted.preset))
    except Mismatch:
        # Not a LoRA on linear layers, or it does not fit: loading it reports which.
        return False
    return True


def check_loads(
    preset: Preset, parts: Sequence[Checkpoint], world: World, options: Options
) -> None:
    """Load a prepared model once, so that an unreliable one is refused before its first chat.

    Models that have a plan, and those that do not fit the free memory, are not loaded: their
    first load checks them. Raises Mismatch.
    """
    from llmchat.engines.transformers.checkpoint_names import modern_config
    from llmchat.engines.transformers.families import has_plan

    base, *adapters = parts
    config = modern_config(read_json(base.path / "config.json"))
    if has_plan(config) or config.get("is_encoder_decoder") or not fits_memory(base):
        return
    model = Model(replace(preset, draft=""), base, tuple(adapters), world=world)
    _transformers(model, options, NoProgress()).unload()


def _transformers(model: Model, options: Options, progress: Progress) -> "TransformersEngine":
    preset, base = model.preset, model.base
    assert base is not None
    prepared = copy_to_open(model, options, progress)
    if prepared is None:
        note_rounding(preset, (base, *model.adapters), progress)
    elif stored_kind(base):
        # A copy that keeps the numbers: without the compiled step they are rounded at each start.
        note_rounding(preset, (base,), progress)
    if preset.weights == "fp32" and base.from_gguf and not stored_kind(base):
        progress.note(
            "note: this model was dequantised from a GGUF file to bf16; fp32 computes with more"
            " digits, but its weights have those of bf16"
        )
    try:
        return _open_transformers(model, options, prepared, progress)
    except IntegrityError:
        if prepared is None:
            raise
        drop(prepared)
        return _open_transformers(model, options, copy_to_open(model, options, progress), progress)


def _open_transformers(
    model: Model, options: Options, prepared: Path | None, progress: Progress
) -> "TransformersEngine":
    from llmchat.engines.transformers import TransformersEngine

    assert model.base is not None
    draft = draft_of(model)
    return TransformersEngine(
        model.base.path,
        [checkpoint.path for checkpoint in model.adapters],
        weights=_weights_to_open(model.preset, model.base),
        kv=model.preset.kv,
        device=options.device,
        name=title(model.preset),
        adapter_scale=model.preset.adapter_scale,
        trust_remote_code=options.trust_remote_code,
        prepared=prepared,
        kernels=kernels_folder(model.world) if model.world else None,
        proven=proof_file(model),
        draft=_transformers(draft, options, progress) if draft else None,
        weights_name=weights_in_use(model.preset, model.base),
    )


def _weights_to_open(preset: Preset, base: Checkpoint) -> Weights:
    """int8 and int4 both keep the numbers of a quantised file: those of a packed folder on all
    executors, others in the compiled step.
    """
    if preset.weights not in ("int8", "int4") or not stored_kind(base):
        return preset.weights
    return "int4" if is_packed(base) else "int8"


def _scripted(model: Model, options: Options, progress: Progress) -> Engine:
    from llmchat.engines.scripted import ScriptedEngine

    return ScriptedEngine()


def _openai(model: Model, options: Options, progress: Progress) -> Engine:
    assert model.elsewhere is not None
    return external.open_served(model.preset, model.elsewhere, options, progress)


def _gguf(model: Model, options: Options, progress: Progress) -> Engine:
    assert model.base is not None
    return external.open_gguf(
        model.preset, model.base, model.adapters, options, title(model.preset), progress
    )


def _of_plugin(model: Model, options: Options, progress: Progress) -> Engine:
    offer = plugins.find("engine", model.preset.engine)
    if offer is None:
        raise UsageError(f"there is no engine `{model.preset.engine}`")
    engine: Engine = plugins.make(offer, model=model, options=options)
    return engine


_ENGINES: dict[str, Callable[[Model, Options, Progress], Engine]] = {
    "transformers": _transformers,
    "gguf": _gguf,
    "openai": _openai,
    "scripted": _scripted,
}
# What an engine cannot change while it runs.
_FIXED = ("engine", "weights", "kv", "draft")
