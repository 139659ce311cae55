"""Reads texts again whose rotary frequencies depend on their length (LongRoPE, Ding et al. 2024).

A text of more than `trained` tokens has other frequencies at all of its positions, so keys that
were rotated before it grew that long cannot be used. As in transformers, an answer's tokens up to
that length are computed with the first frequencies, and those beyond it with the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput

Read = Callable[[Sequence[SequenceInput]], list[Tensor]]
# Tokens that are read again at once.
_PIECE = 512


def run(read: Read, sequences: Sequence[SequenceInput]) -> list[Tensor]:
    """read(sequences), an executor's pass over texts whose caches say `is_long` for the frequencies
    of their length.
    """
    if not any(map(_changes, sequences)):
        return read(sequences)
    return [_run_one(read, sequence) for sequence in sequences]


def _changes(sequence: SequenceInput) -> bool:
    cache = sequence.cache
    is_long = _length(sequence) > cache.trained
    return bool(cache.trained) and cache.is_long != is_long


def _length(sequence: SequenceInput) -> int:
    read: int = sequence.cache.length + len(sequence.ids)
    return max(read, sequence.whole)


def _run_one(read: Read, sequence: SequenceInput) -> Tensor:
    cache, ids = sequence.cache, sequence.ids
    left = 0 if sequence.whole > cache.trained else cache.trained - cache.length
    if sequence.all_logits and 0 < left < len(ids):
        parts = (replace(sequence, ids=part) for part in (ids[:left], ids[left:]))
        return torch.cat([_run_one(read, part) for part in parts])
    if _changes(sequence):
        _read_again(read, sequence)
    return read([sequence])[0]


def _read_again(read: Read, sequence: SequenceInput) -> None:
    """Read what the cache holds with the other frequencies."""
    cache = sequence.cache
    text, is_long = list(cache.text), not cache.is_long
    cache.clear()
    cache.is_long = is_long
    for start in range(0, len(text), _PIECE):
        read([replace(sequence, ids=text[start : start + _PIECE], all_logits=False)])
