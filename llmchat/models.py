"""From a preset to its files, its tokenizer and a loaded engine. An engine is named here and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.engines import Engine
from llmchat.engines.tokens import Tokens, chat_template, read_json, special_names, special_tokens
from llmchat.errors import Mismatch, ModelNotFound, UsageError, did_you_mean
from llmchat.hub import Checkpoint, Progress, Pulled, find, pull, remove
from llmchat.presets import Preset, Source, get_format, names
from llmchat.prompt import PromptFormat
from llmchat.settings import Options, World


class Model(Struct, frozen=True):
    """A preset whose files are on this machine. Its format is complete: a chat template has been read from the checkpoint."""

    preset: Preset
    base: Checkpoint | None
    adapters: tuple[Checkpoint, ...] = ()


def fetch(preset: Preset, world: World, progress: Progress) -> list[Pulled]:
    """Download what is missing: the base, then its adapters."""
    return [pull(source, world, progress) for source in sources(preset)]


def sources(preset: Preset) -> tuple[Source, ...]:
    return (preset.base, *preset.adapters) if preset.engine in _NEED_FILES else ()


def locate(preset: Preset, world: World) -> Model:
    """The model's files, without the network. Raises ModelNotFound when they are not pulled, Mismatch when no format is known."""
    if preset.engine not in _ENGINES:
        raise UsageError(
            f"no engine is called `{preset.engine}`", did_you_mean(preset.engine, tuple(_ENGINES)) or f"there are {', '.join(_ENGINES)}"
        )
    if preset.engine not in _NEED_FILES:
        form = preset.format if preset.format.parts else get_format("chatml")
        return Model(replace(preset, format=form), None)
    base, *adapters = (_found(source, preset, world) for source in sources(preset))
    if (base.path / "adapter_config.json").exists() and not (base.path / "config.json").exists():
        wanted = read_json(base.path / "adapter_config.json").get("base_model_name_or_path") or "its base model"
        raise Mismatch(f"{preset.name} is an adapter, not a model", f"--model {wanted} --adapter {preset.name}")
    return Model(replace(preset, format=_complete_format(preset, base.path)), base, tuple(adapters))


def _found(source: Source, preset: Preset, world: World) -> Checkpoint:
    try:
        return find(source, world)
    except ModelNotFound as error:
        if source.kind == "path":
            raise
        adapter = f" --adapter {source.repo}" if source in preset.adapters else ""
        raise ModelNotFound(
            f"`{preset.name}` is not pulled: {error.message}", f"`llmchat pull {preset.name}{adapter}` downloads it"
        ) from error


def pulled_presets(world: World) -> list[tuple[Preset, list[Checkpoint]]]:
    """Every preset, the user's own too, whose files are all here."""
    here = []
    for preset in names(world.own_presets).values():
        try:
            here.append((preset, [find(source, world) for source in sources(preset)]))
        except ModelNotFound:
            continue
    return here


def facts(preset: Preset, world: World) -> dict[str, Any]:
    """What is known of a model, as plain values, and the folders of its files when they are here."""
    try:
        model = locate(preset, world)
        folders = [str(part.path) for part in (model.base, *model.adapters) if part]
    except ModelNotFound:
        folders = []
    known = {
        name: msgspec.to_builtins(getattr(preset, name)) for name in ("name", "title", "weights", "context", "sampling", "licence", "notes")
    }
    sources = {"base": str(preset.base), "adapters": list(map(str, preset.adapters)), "format": preset.format.name}
    return known | sources | {"pulled": bool(folders), "folders": folders}


def discard(preset: Preset, world: World) -> int:
    """Remove a model's files, but not those that another pulled preset needs. Returns the bytes freed."""
    shared = {str(source) for other, _ in pulled_presets(world) if other.name != preset.name for source in sources(other)}
    return sum(remove(source, world) for source in sources(preset) if str(source) not in shared)


def tokenizer(model: Model) -> Tokens:
    """The model's tokenizer alone: no weights are read."""
    if model.base is None:
        raise UsageError(f"the engine `{model.preset.engine}` has no tokenizer")
    return Tokens(model.base.path)


def load(model: Model, options: Options) -> Engine:
    """The engine with the model in memory."""
    return _ENGINES[model.preset.engine](model, options)


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
        "base": _commit(model.base),
        "adapters": [_commit(adapter) for adapter in model.adapters],
        "adapter_scale": preset.adapter_scale,
        "weights": preset.weights,
        "engine": preset.engine,
        "format": f"{preset.format.name}@{preset.format.fingerprint()}",
    }


def _commit(checkpoint: Checkpoint | None) -> str:
    return f"{checkpoint.source.repo}@{checkpoint.revision}" if checkpoint else ""


def _complete_format(preset: Preset, folder: Path) -> PromptFormat:
    if preset.format.parts or preset.format.template is not None:
        return preset.format
    template = chat_template(folder)
    if template is None:
        raise Mismatch(
            f"{preset.name} brings no chat template, and no preset names its prompt format",
            "name one with --format; `llmchat presets --formats` lists them",
        )
    return preset.format.with_template(template, special_names(folder), special_tokens(folder))


def _transformers(model: Model, options: Options) -> Engine:
    from llmchat.engines.transformers import TransformersEngine

    preset, base = model.preset, model.base
    assert base is not None
    adapters = [checkpoint.path for checkpoint in model.adapters]
    return TransformersEngine(
        base.path,
        adapters,
        weights=preset.weights,
        device=options.device,
        name=title(preset),
        adapter_scale=preset.adapter_scale,
        trust_remote_code=options.trust_remote_code,
    )


def _scripted(model: Model, options: Options) -> Engine:
    from llmchat.engines.scripted import ScriptedEngine

    return ScriptedEngine()


_ENGINES: dict[str, Callable[[Model, Options], Engine]] = {"transformers": _transformers, "scripted": _scripted}
_NEED_FILES = ("transformers",)
