"""What ollama's store adds to a model: its system text, its sampling, its window, its adapter."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from llmchat.engines.parameter_names import PARAMETER_NAMES
from llmchat.errors import UsageError
from llmchat.hub import StoredModel, find_stored
from llmchat.hub.stores import with_ending
from llmchat.presets import Preset, Source, amend
from llmchat.settings import World

# Our names → those of ollama's Modelfile, which are llama.cpp's and some more.
_SAMPLING = PARAMETER_NAMES["llama.cpp"] | {"max_tokens": "num_predict", "seed": "seed"}
_WINDOW = {"tokens": "num_ctx"}
# How ollama runs a model, not what it answers.
_OF_THE_MACHINE = (
    "num_gpu", "main_gpu", "num_thread", "num_batch", "use_mmap", "use_mlock", "numa", "low_vram",
    "num_keep", "vocab_only", "f16_kv",
)  # fmt: skip


def with_stored(preset: Preset, world: World) -> tuple[Preset, tuple[str, ...]]:
    """A preset with what the store of its base adds, and what is left out.

    What the user gave (`preset.overrides`) stays.
    """
    if preset.base.kind != "ollama":
        return preset, ()
    stored = find_stored(preset.base, world)
    wanted = {name: value for name, value in stored.parameters.items() if _says(name, value)}
    preset, unread = _with_parameters(preset, wanted)
    system = preset.system or ("" if "system" in preset.overrides else stored.system)
    left_out = [*(line for line in stored.left_out if "template" not in line), *unread]
    adapters = _adapters(preset, stored, world)
    return replace(preset, system=system, adapters=adapters), tuple(left_out)


def _says(name: str, value: Any) -> bool:
    """Whether a parameter changes answers: -1 and -2 stand for no limit."""
    return name not in _OF_THE_MACHINE and not (name == "num_predict" and _is_unlimited(value))


def _is_unlimited(value: Any) -> bool:
    return isinstance(value, int) and value < 0


def _with_parameters(preset: Preset, parameters: Mapping[str, Any]) -> tuple[Preset, list[str]]:
    """The preset with the parameters that llmchat has, and the names of the others."""
    rest = dict(parameters)
    stops = rest.pop("stop", [])
    sampling = _taken(preset, rest, _SAMPLING)
    window = _taken(preset, rest, _WINDOW)
    texts = stops if isinstance(stops, list) else [stops]
    ends = dict.fromkeys((*preset.format.stops, *(one for one in texts if isinstance(one, str))))
    form = replace(preset.format, stops=tuple(ends))
    try:
        preset = replace(
            preset,
            format=form,
            sampling=amend(preset.sampling, sampling),
            context=amend(preset.context, window),
        )
    except UsageError as error:
        return preset, [*rest, f"its parameters ({error.message})"]
    return preset, [f"`{name}`" for name in rest]


def _taken(preset: Preset, rest: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The values of our settings, taken out of `rest`, without those that the user gave."""
    found = {ours: rest.pop(theirs) for ours, theirs in names.items() if theirs in rest}
    return {name: value for name, value in found.items() if name not in preset.overrides}


def _adapters(preset: Preset, stored: StoredModel, world: World) -> tuple[Source, ...]:
    """The adapters of the model, unless the user named another or none."""
    if preset.adapters or "adapter" in preset.overrides:
        return preset.adapters
    return tuple(
        Source("path", str(with_ending(file, f"{preset.base.repo}-adapter", world)))
        for file in stored.adapters
    )
