"""The kind of weights that a model runs with, in the words that users see."""

from functools import lru_cache
from pathlib import Path

from llmchat.engines.checkpoint_files import GGUF_POINTER, PACKED_TABLE
from llmchat.errors import LlmchatError
from llmchat.hub import Checkpoint, Inspection, inspect_folder
from llmchat.hub.weights import kind_in_words
from llmchat.presets import Preset, Source


def weights_in_use(preset: Preset, base: Checkpoint | None) -> str:
    """`GPTQ 4-bit` where the compiled step computes with the numbers of such a file; else what
    `--weights` says. Loads torch for quantised weights.
    """
    if base is None or not (kind := stored_kind(base)):
        return preset.weights
    named = kind_in_words(preset.weights, kind)
    return named if named == preset.weights or _keeps_numbers(base) else preset.weights


def stored_kind(base: Checkpoint) -> str:
    """The kind of most weights that keep their numbers, such as `Q4_K_M`; "" for 16 bits."""
    found = _inspected(base)
    return found.quantised.kind if found and found.quantised.stored else ""


def rounded_kind(preset: Preset, base: Checkpoint) -> str:
    """The kind of quantised weights that become int8 or int4 here; "" for all others."""
    found = _inspected(base)
    kind = found.quantised.kind if found else ""
    if preset.weights not in ("int8", "int4") or weights_in_use(preset, base) == kind:
        return ""
    return kind


def is_packed(base: Checkpoint) -> bool:
    """Whether it is a folder of `llmchat convert`, whose numbers every executor computes with."""
    return (base.path / PACKED_TABLE).exists()


def _keeps_numbers(base: Checkpoint) -> bool:
    """Whether the weights run as they are on this machine: in the compiled step, or packed ones."""
    if is_packed(base):
        return True
    from llmchat.engines.transformers.loading import device_named
    from llmchat.engines.transformers.ways import way_of

    found = _inspected(base)
    config = found.config if found else {}
    try:
        return way_of(config, "int8", device_named("auto")) == "compiled"
    except LlmchatError:
        return False


def _inspected(base: Checkpoint) -> Inspection | None:
    """None for files that cannot be read: loading reports why."""
    try:
        return _of_folder(base.path, _times(base.path))
    except LlmchatError:
        return None


@lru_cache(maxsize=64)
def _of_folder(folder: Path, times: tuple[int, ...]) -> Inspection:
    """Headers are read again when files have changed."""
    return inspect_folder(Checkpoint(folder, Source("path", str(folder)), "", 0))


def _times(folder: Path) -> tuple[int, ...]:
    names = (
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        GGUF_POINTER,
        PACKED_TABLE,
    )
    found = (folder / name for name in names)
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in found)
