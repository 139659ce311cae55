"""Apply a user's options and live settings to a preset."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets.load import find, get_format, served
from llmchat.presets.types import ContextPolicy, Preset, Source
from llmchat.settings import Options
from llmchat.settings.sampling import SAMPLING_SETTINGS
from llmchat.settings.types import check
from llmchat.structure import Structure
from llmchat.structure.arguments import parse as parse_structure

# Option → field of ContextPolicy.
_WINDOW_OPTIONS = {"context": "tokens", "policy": "policy", "turns": "turns", "recall": "recall"}
# Name in `/set` → field of ContextPolicy.
_WINDOW_SETTINGS = {**_WINDOW_OPTIONS, "low_water": "low_water"}
_StructureSetting = Annotated[Structure | None, Meta(title="answer form")]
_OPTIONAL = ("seed", "think", "think_budget")
_NO_ADAPTER = ("none", "off")
_MAX_SCALE = 10

_Value = TypeVar("_Value", Sampling, ContextPolicy)


def preset_for(options: Options, own: Path | None = None) -> Preset:
    """The preset that `options` select, with all other options applied.

    own: the folder of the user's presets.
    """
    engine: str | None = options.engine or ("openai" if options.url else None)
    preset = served(options.model, own) if engine == "openai" else find(options.model, own)
    base = find(options.base, own).base if options.base else preset.base
    sampling = {name: getattr(options, name) for name in SAMPLING_SETTINGS}
    window = {field: getattr(options, name) for name, field in _WINDOW_OPTIONS.items()}
    if base.is_gguf and not engine and preset.engine == "transformers":
        engine = "auto"
    given = {
        "engine": engine,
        "weights": options.weights,
        "kv": options.kv,
        "url": options.url,
        "draft": _draft(options.draft),
        "system": options.system,
        "format": get_format(options.format) if options.format else None,
    }
    return replace(
        preset,
        base=replace(base, revision=options.revision) if options.revision else base,
        overrides=_overrides(options) if base.kind == "ollama" else (),
        sampling=_structured(amend(preset.sampling, sampling), options.schema),
        context=amend(preset.context, window),
        **{name: value for name, value in given.items() if value is not None},
        **_adapter_fields(options.adapter),
    )


def _draft(name: str | None) -> str | None:
    return "" if name in _NO_ADAPTER else name


def _overrides(options: Options) -> tuple[str, ...]:
    """The settings that the options give, by their field in Sampling or ContextPolicy."""
    given = (name for name in SAMPLING_SETTINGS if getattr(options, name) is not None)
    window = (
        field for name, field in _WINDOW_OPTIONS.items() if getattr(options, name) is not None
    )
    texts = (name for name in ("system", "adapter") if getattr(options, name) is not None)
    return (*given, *window, *texts)


def _structured(sampling: Sampling, schema: str | None) -> Sampling:
    """The sampling with the structure that the option `schema` asks for, if it is given."""
    return replace(sampling, structure=parse_structure(schema)) if schema else sampling


def _adapter_fields(adapter: str | None) -> dict[str, Any]:
    if not adapter:
        return {}
    name, scale = split_scale(adapter)
    adapters = () if name in _NO_ADAPTER else (_adapter(name),)
    return {"adapters": adapters, "adapter_scale": scale}


def amend(value: _Value, changes: Mapping[str, Any]) -> _Value:
    """A copy of `value` with these changes, except those that are None. Text is converted.

    Raises UsageError that names the field and its valid values.
    """
    types = {field.name: field.type for field in msgspec.structs.fields(value)}
    titles = {field: name for name, field in _WINDOW_SETTINGS.items()}
    checked = {
        field: check(change, types[field], titles.get(field, field))
        for field, change in changes.items()
        if change is not None
    }
    return replace(value, **checked)


def setting_names() -> tuple[str, ...]:
    """What a user can change during a chat: sampling, the window, and the form of the answer."""
    return (*SAMPLING_SETTINGS, *_WINDOW_SETTINGS, "schema")


def setting_type(name: str) -> Any:
    """The type of a setting."""
    if name in SAMPLING_SETTINGS:
        return SAMPLING_SETTINGS[name]
    if name == "schema":
        return _StructureSetting
    types = {field.name: field.type for field in msgspec.structs.fields(ContextPolicy)}
    return types[_WINDOW_SETTINGS[name]]


def settings_of(sampling: Sampling, context: ContextPolicy) -> dict[str, Any]:
    """The value of each setting, in types that JSON has."""
    values = {name: getattr(sampling, name) for name in SAMPLING_SETTINGS}
    values |= {name: getattr(context, field) for name, field in _WINDOW_SETTINGS.items()}
    return values | {"schema": msgspec.to_builtins(sampling.structure)}


def adjust(
    preset: Preset, sampling: Sampling, values: Mapping[str, Any]
) -> tuple[Preset, Sampling]:
    """The preset and the sampling with these settings. None removes a seed, a budget, a structure.

    Raises UsageError for an invalid value.
    """
    removed = [name for name in _OPTIONAL if values.get(name, 0) is None]
    sampling = replace(sampling, **dict.fromkeys(removed))
    if "schema" in values:
        structure = check(values["schema"], Structure | None, "schema")
        sampling = replace(sampling, structure=structure)
    of_sampling = {name: value for name, value in values.items() if name in SAMPLING_SETTINGS}
    of_window = {
        _WINDOW_SETTINGS[name]: value for name, value in values.items() if name in _WINDOW_SETTINGS
    }
    context = amend(preset.context, of_window)
    return replace(preset, context=context), amend(sampling, of_sampling)


def split_scale(adapter: str) -> tuple[str, float]:
    """The name and the scale of `name:0.5`; the scale is 1 if none is given."""
    match = re.fullmatch(r"(.+):(\d*\.?\d+)", adapter)
    if not match:
        return adapter, 1.0
    if float(match[2]) > _MAX_SCALE:
        raise UsageError(
            f"invalid adapter scale {match[2]}", f"use 0 to {_MAX_SCALE}; 1 is as trained"
        )
    return match[1], float(match[2])


def absolute_adapter(adapter: str) -> str:
    """An adapter argument that is valid in every folder: with an absolute path."""
    name, _ = split_scale(adapter)
    if name in _NO_ADAPTER or not _is_path(name):
        return adapter
    return str(Path(name).expanduser().resolve()) + adapter[len(name) :]


def _is_path(name: str) -> bool:
    path = Path(name).expanduser()
    return name.startswith(("/", "./", "../", "~")) or path.is_dir() or path.suffix == ".gguf"


def _adapter(name: str) -> Source:
    if _is_path(name):
        return Source("path", str(Path(name).expanduser().resolve()))
    if name.count("/") == 1:
        return Source("hub", name)
    raise UsageError(
        f"there is no adapter `{name}`",
        "an adapter is a folder (./name) or a Hub repo (org/name); append :0.5 for half strength;"
        " `none` removes the preset's adapter",
    )
