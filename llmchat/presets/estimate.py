"""What a preset asks of this machine, before anything of it is looked at: an estimate from its number of parameters.

`llmchat pull --dry-run` says it exactly, from the checkpoint's own headers.
"""

from collections.abc import Sequence
from typing import get_args

from msgspec import Struct

from llmchat import memory_estimate
from llmchat.presets.types import Preset
from llmchat.settings.types import Weights

# Nearly every checkpoint is published with 16 bits a weight.
_PUBLISHED_BYTES = 2


class Estimate(Struct, frozen=True):
    """download: bytes, about; fits: the kind of weights that fits into the room there is, the preset's own where it does; "no" where none does, "unknown"
    where the preset does not say how large it is, "unsupported" where llmchat cannot run the model at all."""

    download: int
    fits: str


def estimate_fit(preset: Preset, rooms: Sequence[int]) -> Estimate:
    """rooms: bytes of each memory a model could live in: the RAM, a GPU."""
    kinds = (
        preset.weights,
        *(
            kind
            for kind in get_args(Weights)
            if memory_estimate.BYTES[kind] < memory_estimate.BYTES[preset.weights]
        ),
    )
    needed = {
        kind: memory_estimate.weights_of_count(preset.parameters, kind) + memory_estimate.OVERHEAD
        for kind in kinds
    }
    fitting = [kind for kind in kinds if needed[kind] <= max(rooms)] if preset.parameters else []
    archive = preset.base.archive.size if preset.base.archive else 0
    fits = (
        "unsupported"
        if preset.unsupported
        else "unknown"
        if not preset.parameters
        else fitting[0]
        if fitting
        else "no"
    )
    return Estimate(archive or int(preset.parameters * _PUBLISHED_BYTES), fits)


def matches(preset: Preset, words: Sequence[str]) -> bool:
    """Whether each word is in the preset's name, title, aliases, repos, format or licence; upper and lower case are the same."""
    texts = (
        preset.name,
        preset.title,
        *preset.aliases,
        preset.format.name,
        preset.licence,
        preset.base.repo,
    )
    text = " ".join((*texts, *(adapter.repo for adapter in preset.adapters))).casefold()
    return all(word.casefold() in text for word in words)
