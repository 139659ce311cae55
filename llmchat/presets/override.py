"""A preset with the user's options in place of its own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets.load import find, get_format, served
from llmchat.presets.types import ContextPolicy, Preset, Source
from llmchat.settings import Options
from llmchat.settings.sampling import SAMPLING_SETTINGS
from llmchat.settings.types import check

# Option → field of the context policy.
_CONTEXT = {"context": "tokens", "policy": "policy", "turns": "turns"}

# The same and one more by the names of /set.
_SETTINGS = {**_CONTEXT, "low_water": "low_water"}

_Value = TypeVar("_Value", Sampling, ContextPolicy)


def preset_for(options: Options, own: Path | None = None) -> Preset:
    """The preset that `options` name, with everything else in them applied."""
    engine = options.engine or ("openai" if options.url else None)
    preset = served(options.model, own) if engine == "openai" else find(options.model, own)
    changes: dict[str, Any] = {
        name: value
        for name in ("weights", "url", "system")
        if (value := getattr(options, name)) is not None
    }
    if engine:
        changes["engine"] = engine
    if options.base:
        changes["base"] = find(options.base, own).base
    if options.revision:
        changes["base"] = replace(changes.get("base", preset.base), revision=options.revision)
    if options.adapter:
        name, scale = split_scale(options.adapter)
        changes["adapters"] = () if name in ("none", "off") else (_adapter(name),)
        changes["adapter_scale"] = scale
    if options.format:
        changes["format"] = get_format(options.format)
    changes["sampling"] = amend(
        preset.sampling, {name: getattr(options, name) for name in SAMPLING_SETTINGS}
    )
    changes["context"] = amend(
        preset.context, {field: getattr(options, name) for name, field in _CONTEXT.items()}
    )
    return replace(preset, **changes)


def amend(value: _Value, changes: dict[str, Any]) -> _Value:
    """A checked copy of `value`; changes that are None are left out, text is read as what the field holds.

    Raises UsageError naming the field and what it may be.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(value)}
    shown = {field: name for name, field in _SETTINGS.items()}
    given = {name: change for name, change in changes.items() if change is not None}
    checked = {
        name: check(change, kinds[name], shown.get(name, name)) for name, change in given.items()
    }
    return replace(value, **checked)


def setting_names() -> tuple[str, ...]:
    """What can be changed in the middle of a chat: sampling, then the window."""
    return (*SAMPLING_SETTINGS, *_SETTINGS)


def setting_kind(name: str) -> Any:
    """The type of what can be changed in a chat."""
    kind = ContextPolicy if name in _SETTINGS else Sampling
    return next(
        field.type
        for field in msgspec.structs.fields(kind)
        if field.name == _SETTINGS.get(name, name)
    )


def settings_of(sampling: Sampling, context: ContextPolicy) -> dict[str, Any]:
    """The value of each of them."""
    return {name: getattr(sampling, name) for name in SAMPLING_SETTINGS} | {
        name: getattr(context, field) for name, field in _SETTINGS.items()
    }


def adjust(
    preset: Preset, sampling: Sampling, values: Mapping[str, Any]
) -> tuple[Preset, Sampling]:
    """The preset and the sampling with these settings, None for no seed. Raises UsageError for an impossible value."""
    if "seed" in values and values["seed"] is None:
        sampling = replace(sampling, seed=None)
    sampling = amend(
        sampling, {name: value for name, value in values.items() if name in SAMPLING_SETTINGS}
    )
    changes = {_SETTINGS[name]: value for name, value in values.items() if name in _SETTINGS}
    return replace(preset, context=amend(preset.context, changes)), sampling


def split_scale(adapter: str) -> tuple[str, float]:
    """`name:0.5` as its two parts; 1 where no scale is given."""
    match = re.fullmatch(r"(.+):(\d*\.?\d+)", adapter)
    if not match:
        return adapter, 1.0
    if float(match[2]) > 10:
        raise UsageError(
            f"a scale of {match[2]} is too much", "1 is as trained; 0 to 10 can be given"
        )
    return match[1], float(match[2])


def absolute_adapter(adapter: str) -> str:
    """An adapter argument that means the same in every folder."""
    name, _ = split_scale(adapter)
    if name in ("none", "off") or not _is_path(name):
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
        f"`{name}` is no adapter",
        "an adapter is a folder (./name) or a Hub repo (org/name), with :0.5 behind it half as strong; `none` takes the preset's off",
    )
