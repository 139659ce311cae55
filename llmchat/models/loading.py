"""From a preset to its files, its tokenizer and a loaded engine. An engine is named here and nowhere else; `shelf` keeps the files."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.engines import Engine
from llmchat.engines.capabilities import TakesAdapters, unwrap
from llmchat.engines.checkpoint_files import chat_template, read_json, special_names, special_tokens
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import (
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NotPulled,
    OutOfResources,
    UsageError,
    did_you_mean,
)
from llmchat.hub import (
    Checkpoint,
    CopyRecipe,
    drop,
    find,
    find_copy,
    find_intact,
    inspect_folder,
    make_copy,
    size_of,
    touch_used,
)
from llmchat.hub.machine import this_machine
from llmchat.memory_estimate import available_ram, needed
from llmchat.models import external
from llmchat.presets import Preset, Source, get_format, names
from llmchat.presets import find as find_preset
from llmchat.progress import NoProgress, Progress
from llmchat.prompt import PromptFormat
from llmchat.settings import Options, World

if TYPE_CHECKING:
    from llmchat.engines.transformers.prepared_checkpoint import Preparation


class Model(Struct, frozen=True):
    """A preset whose files are on this machine. Its format is complete: a chat template has been read from the checkpoint.

    world: where its prepared copy lies; None for a model that is to have none. elsewhere: the server that runs it, for the engine `openai`.
    """

    preset: Preset
    base: Checkpoint | None
    adapters: tuple[Checkpoint, ...] = ()
    used: Callable[[], None] = lambda: None
    world: World | None = None
    elsewhere: external.Elsewhere | None = None


def sources(preset: Preset) -> tuple[Source, ...]:
    return (preset.base, *preset.adapters) if preset.engine in _NEED_FILES else ()


def locate(preset: Preset, world: World) -> Model:
    """The model's files, without the network; a server is asked for the model that is meant.

    Raises ModelNotFound when they are not pulled, or the server has no such model, Mismatch when no format is known.
    """
    if preset.engine not in _ENGINES:
        raise UsageError(
            f"no engine is called `{preset.engine}`",
            did_you_mean(preset.engine, tuple(_ENGINES)) or f"use {', '.join(_ENGINES)}",
        )
    if preset.engine == "openai":
        return _locate_served(preset, world)
    if preset.engine == "gguf":
        file, own = external.locate_gguf(preset, world)
        return Model(replace(preset, format=_complete_format(preset, file.path)), file, own)
    if preset.engine not in _NEED_FILES:
        form = preset.format if preset.format.parts else get_format("chatml")
        return Model(replace(preset, format=form), None)
    base, *adapters = (_found(source, preset, world) for source in sources(preset))
    if (base.path / "adapter_config.json").exists() and not (base.path / "config.json").exists():
        wanted = (
            read_json(base.path / "adapter_config.json").get("base_model_name_or_path")
            or "its base model"
        )
        raise Mismatch(
            f"{preset.name} is an adapter, not a model", f"--model {wanted} --adapter {preset.name}"
        )
    complete = replace(preset, format=_complete_format(preset, base.path))
    return Model(complete, base, tuple(adapters), lambda: touch_used(preset.name, world), world)


def _locate_served(preset: Preset, world: World) -> Model:
    """What a server's template writes is not known here: where the model has no format of its own, ChatML stands for it when tokens are counted."""
    there = external.locate_served(preset, world)
    named = replace(preset, name=preset.name or there.served.name)
    if named.format.parts or not there.files:
        form = named.format if named.format.parts else get_format("chatml")
        chat = not named.format.parts
    else:
        form, chat = _complete_format(named, there.files), True
    return Model(replace(named, format=form), None, elsewhere=replace(there, chat=chat))


def _found(source: Source, preset: Preset, world: World) -> Checkpoint:
    """The checkpoint of a preset's source; a file that has changed since it was pulled is read again before it is used."""
    adapter = f" --adapter {source.repo}" if source in preset.adapters else ""
    revision = (
        f" --revision {preset.base.revision}"
        if preset.base.revision and preset.base.kind == "hub" and _chosen(preset, world)
        else ""
    )
    command = f"`llmchat pull {preset.name}{revision}{adapter}`"
    try:
        return find_intact(source, world)
    except IntegrityError as error:
        if source.kind == "path":
            raise
        raise IntegrityError(
            f"{preset.name}: {error.message}", f"{command} fetches it again"
        ) from error
    except ModelNotFound as error:
        if source.kind == "path":
            raise
        raise NotPulled(
            f"`{preset.name}` is not pulled: {error.message}", f"{command} downloads it"
        ) from error


def _chosen(preset: Preset, world: World) -> bool:
    """Whether the revision is the user's and not the preset's own."""
    try:
        return find_preset(preset.name, world.own_presets).base.revision != preset.base.revision
    except LlmchatError:
        return True


def pulled_presets(world: World) -> list[tuple[Preset, list[Checkpoint]]]:
    """Every preset, the user's own too, whose files are all here."""
    here = []
    for preset in names(world.own_presets).values():
        if preset.engine == "openai":
            # A server has its model.
            continue
        try:
            here.append((preset, [find(source, world) for source in sources(preset)]))
        except ModelNotFound:
            continue
    return here


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


def recipe(preset: Preset, parts: Sequence[Checkpoint]) -> CopyRecipe:
    """What a prepared copy of the preset is made of. parts: base, then adapters."""
    return CopyRecipe.of(parts[0], parts[1:], preset.adapter_scale)


def prepare(
    preset: Preset,
    parts: Sequence[Checkpoint],
    world: World,
    progress: Progress,
    *,
    trust: bool = False,
) -> Path:
    """The prepared copy of a model: adapters merged, int8, ready to be mapped. parts: base, then adapters. Made now unless it is there.

    Raises Mismatch for a model that is not prepared, OutOfResources where the disk has no room, OSError where the copy cannot be written.
    """
    base, *adapters = parts
    if preset.weights != "int8":
        raise Mismatch(f"{preset.weights} weights are not prepared")

    def start() -> "Preparation":
        from llmchat.engines.transformers import compiled
        from llmchat.engines.transformers.prepared_checkpoint import Preparation

        # The step that will run it is compiled now as well, not at the first question.
        compiled.find_kernels(_kernels(world))
        _note_rounding(parts, progress)
        return Preparation(
            base.path, [adapter.path for adapter in adapters], preset.adapter_scale, trust
        )

    return make_copy(recipe(preset, parts), base, start, world, progress)


def prove(preset: Preset, parts: Sequence[Checkpoint], world: World, options: Options) -> None:
    """Load a prepared model once, so that one whose answers could not be relied on is refused before its first chat.

    Nothing is done for the architectures of the compiled step, and where memory is short: then its first load tests it. Raises Mismatch.
    """
    from llmchat.engines.transformers.checkpoint_names import modern_config
    from llmchat.engines.transformers.families import llama

    base, *adapters = parts
    config = modern_config(read_json(base.path / "config.json"))
    if not llama.supports(config) and not config.get("is_encoder_decoder") and _fits(base):
        _transformers(
            Model(preset, base, tuple(adapters), world=world), options, NoProgress()
        ).unload()


def load(model: Model, options: Options, progress: Progress | None = None) -> Engine:
    """The engine with the model in memory; when it was used is kept. progress: is told what the user should know of it."""
    engine = _ENGINES[model.preset.engine](model, options, progress or NoProgress())
    model.used()
    return engine


def adapt(
    engine: Engine, loaded: Model, options: Options, wanted: Model, wanted_options: Options
) -> bool:
    """Put the adapters of another preset on the engine that runs this one; False where it must be loaded anew."""
    running = unwrap(engine)
    same = loaded.base == wanted.base and options.device == wanted_options.device
    if (
        not isinstance(running, TakesAdapters)
        or not same
        or any(getattr(loaded.preset, one) != getattr(wanted.preset, one) for one in _OF_ENGINE)
    ):
        return False
    strengths = [1.0] * len(wanted.adapters)
    strengths[-1:] = [wanted.preset.adapter_scale] * len(strengths[-1:])
    try:
        running.adapt(
            list(zip((adapter.path for adapter in wanted.adapters), strengths, strict=True)),
            title(wanted.preset),
        )
    except Mismatch:
        # It does not fit, or is more than matrices beside linears: loading it says which.
        return False
    return True


def title(preset: Preset) -> str:
    """Preset and adapters in a few words, for the status line: `alpaca-7b+alpaca-lora-7b`."""
    names = [Path(source.repo).name for source in preset.adapters]
    if names and preset.adapter_scale != 1:
        names[-1] += f":{preset.adapter_scale:g}"
    return "+".join((preset.name, *names))


def provenance(model: Model) -> dict[str, Any]:
    """What an answer of this model is made of, as plain values: enough to load the same again."""
    preset = model.preset
    return {
        "model": preset.name,
        "base": str(model.elsewhere) if model.elsewhere else _commit(model.base),
        "adapters": [_commit(adapter) for adapter in model.adapters],
        "adapter_scale": preset.adapter_scale,
        "weights": preset.weights if preset.engine in _NEED_FILES else "",
        "engine": preset.engine,
        "format": f"{preset.format.name}@{preset.format.fingerprint()}",
    }


def _commit(checkpoint: Checkpoint | None) -> str:
    return f"{checkpoint.source.repo}@{checkpoint.revision}" if checkpoint else ""


def _complete_format(preset: Preset, folder: Path) -> PromptFormat:
    """The preset's format with its template, where the checkpoint brings it, and with the token ids that end this model's answers."""
    return replace(
        _with_template(preset, folder), stop_ids=(*preset.format.stop_ids, *preset.stop_ids)
    )


def _with_template(preset: Preset, folder: Path) -> PromptFormat:
    if preset.format.parts or preset.format.template is not None:
        return preset.format
    template = chat_template(folder)
    if template is None:
        raise Mismatch(
            f"{preset.name} brings no chat template, and no preset names its prompt format",
            "name one with --format; `llmchat presets --formats` lists them",
        )
    return preset.format.with_template(template, special_names(folder), special_tokens(folder))


def _transformers(model: Model, options: Options, progress: Progress) -> Engine:
    from llmchat.engines.transformers import TransformersEngine

    preset, base = model.preset, model.base
    assert base is not None
    prepared = _prepared(model, options, progress)
    if prepared is None:
        _note_rounding((base, *model.adapters), progress)
    if preset.weights == "fp32" and base.from_gguf:
        progress.note(
            "note: this model was dequantised from a GGUF to bf16; fp32 computes in more digits, from weights that have those of bf16"
        )

    def open_with(prepared: Path | None) -> Engine:
        return TransformersEngine(
            base.path,
            [checkpoint.path for checkpoint in model.adapters],
            weights=preset.weights,
            device=options.device,
            name=title(preset),
            adapter_scale=preset.adapter_scale,
            trust_remote_code=options.trust_remote_code,
            prepared=prepared,
            kernels=_kernels(model.world) if model.world else None,
            proven=_proven(model),
        )

    try:
        return open_with(prepared)
    except IntegrityError:
        if prepared is None:
            raise
        drop(prepared)
        return open_with(_prepared(model, options, progress))


def _kernels(world: World) -> Path:
    return world.cache / "kernels"


def _proven(model: Model) -> Path | None:
    """The file that says that this model, with these libraries, gives from its cache what it gives cold."""
    if model.world is None or model.base is None:
        return None
    made_of = (
        recipe(model.preset, (model.base, *model.adapters)),
        model.preset.weights,
        version("torch"),
        version("transformers"),
    )
    return (
        model.world.cache / "proven" / hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:16]
    )


def _prepared(model: Model, options: Options, progress: Progress) -> Path | None:
    """The copy to be opened. It is made for what a preset names; another adapter that was asked for once is merged in memory."""
    preset, world, base = model.preset, model.world, model.base
    if world is None or base is None or preset.weights != "int8":
        return None
    parts = (base, *model.adapters)
    found = find_copy(recipe(preset, parts), world)
    if found and size_of([found]) > available_ram() and not this_machine(world).gpus:
        progress.note(
            f"note: less memory is free than {preset.name} takes: parts of it are read from the disk again for every token"
        )
    if found or options.adapter or not _fits(base):
        return found
    try:
        return prepare(preset, parts, world, progress, trust=options.trust_remote_code)
    except Mismatch:
        # Of a kind that is not prepared; or adapter and base do not belong together, which opening them says.
        return None
    except (OutOfResources, OSError) as error:
        progress.note(f"note: no prepared copy was written, each start takes longer: {error}")
        return None


def _note_rounding(parts: Sequence[Checkpoint], progress: Progress) -> None:
    """Say what becomes of an adapter on a base whose weights are int8 already."""
    quantised = (read_json(parts[0].path / "config.json").get("quantization_config") or {}).get(
        "load_in_8bit"
    )
    if quantised and len(parts) > 1:
        progress.note(
            "note: the base is 8-bit already; where the adapter changes it, its weights are rounded a second time"
        )


def _fits(base: Checkpoint) -> bool:
    """Whether the model would fit the memory. One that does not is not prepared unasked: its copy would be read from the disk for every token."""
    try:
        return needed(inspect_folder(base).shapes, "int8") <= available_ram()
    except IntegrityError:
        return True  # opening it says what is wrong


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


_ENGINES: dict[str, Callable[[Model, Options, Progress], Engine]] = {
    "transformers": _transformers,
    "gguf": _gguf,
    "openai": _openai,
    "scripted": _scripted,
}
_NEED_FILES = ("transformers",)
# What an engine cannot change once it runs.
_OF_ENGINE = ("engine", "weights")
