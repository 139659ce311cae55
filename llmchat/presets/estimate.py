"""Estimate from a preset alone whether its model fits this machine.

`llmchat pull --dry-run` computes it exactly, from the headers of the checkpoint.
"""

import re
from collections.abc import Sequence
from typing import get_args

from msgspec import Struct

from llmchat import memory_estimate
from llmchat.presets.types import Preset
from llmchat.settings.types import Weights

# Nearly every checkpoint is published with 16 bits a weight.
_PUBLISHED_BITS = 16.0
# What scales and wider tensors add to the bits in the name of a quantisation.
_SCALES = 0.85


class Estimate(Struct, frozen=True):
    """An estimate of the download and of the weights that fit into memory.

    download: bytes. fits: the preset's kind of weights, or the largest smaller one that fits; that
    of a GGUF file; "no" if none does, "unknown" without a number of parameters, "unsupported" if
    llmchat cannot run it.
    """

    download: int
    fits: str


def estimate_fit(preset: Preset, memories: Sequence[int]) -> Estimate:
    """memories: bytes of each memory that could hold the model: the RAM, a GPU."""
    archive = preset.base.archive
    published = archive.size if archive and archive.size else _published(preset)
    return Estimate(published, _fitting_weights(preset, max(memories)))


def _published(preset: Preset) -> int:
    """Bytes of the weights, by the name of their quantisation for a GGUF file."""
    digit = re.search(r"Q(\d)|FP(4)", preset.base.variant)
    bits = int(digit[1] or digit[2]) + _SCALES if digit else _PUBLISHED_BITS
    return int(preset.parameters * bits / 8)


def _fitting_weights(preset: Preset, memory: int) -> str:
    if preset.unsupported:
        return "unsupported"
    if not preset.parameters:
        return "unknown"
    if preset.base.variant:
        # A quantised file keeps its own numbers.
        fits = _published(preset) + memory_estimate.OVERHEAD <= memory
        return preset.base.variant if fits else "no"
    sizes = memory_estimate.BYTES
    smaller = [kind for kind in get_args(Weights) if sizes[kind] < sizes[preset.weights]]
    for kind in (preset.weights, *smaller):
        needed = memory_estimate.weights_of_count(preset.parameters, kind)
        if needed + memory_estimate.OVERHEAD <= memory:
            return str(kind)
    return "no"


def matches(preset: Preset, words: Sequence[str]) -> bool:
    """Whether every word occurs in a preset's names, repos, format or licence, ignoring case."""
    adapters = (adapter.repo for adapter in preset.adapters)
    names = (preset.name, preset.title, *preset.aliases, preset.base.repo, *adapters)
    text = " ".join((*names, preset.format.name, preset.licence)).casefold()
    return all(word.casefold() in text for word in words)
