"""Copies the states of recurrent models, which can be continued but not truncated.

A recurrent layer keeps one state of fixed size, and going back in a text requires a copy from
there. In a hybrid model only the recurrent layers are copied; the keys and values of its attention
layers are truncated. An unknown kind of cache is copied as a whole.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.pytorch.state_copies import MOST, MOST_BYTES, least_useful

# The state of a linear attention layer in transformers' caches.
_PARTS = ("conv_states", "recurrent_states", "has_previous_state")


@dataclass(frozen=True)
class _Copy:
    length: int
    state: Any
    size: int


class Copies:
    """States of one text by the number of tokens read, at most `MOST` of them and `MOST_BYTES`.

    Early ones are thinned out first.
    """

    def __init__(self) -> None:
        self._copies: list[_Copy] = []

    def keep(self, length: int, cache: Any) -> None:
        """Copy the state after `length` tokens."""
        if any(copy.length == length for copy in self._copies):
            return
        state = _taken(cache)
        size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(state))
        if size > MOST_BYTES:
            return
        self._copies.append(_Copy(length, state, size))
        while len(self._copies) > MOST or sum(copy.size for copy in self._copies) > MOST_BYTES:
            self._copies.pop(least_useful([copy.length for copy in self._copies]))

    def back(self, cache: Any, held: int, length: int) -> tuple[int, Any]:
        """(tokens, cache) of the last copy after at most `length` tokens; (0, None) if there is
        none.

        held: tokens in the cache.
        """
        self._copies = [copy for copy in self._copies if copy.length <= length]
        if not self._copies:
            return 0, None
        copy = self._copies[-1]
        return copy.length, _put_back(copy.state, cache, copy.length - held)

    def clear(self) -> None:
        self._copies.clear()


def can_be_cut(cache: Any) -> bool:
    """Whether all layers keep keys and values of every token."""
    from transformers.cache_utils import DummyLayer, DynamicIndexedLayer, DynamicLayer

    known = (DynamicLayer, DynamicIndexedLayer, DummyLayer)
    return bool(getattr(cache, "is_croppable", False)) and all(
        type(layer) in known for layer in cache.layers
    )


def keeping_all(cache: Any) -> Any:
    """The cache with sliding-window layers replaced by layers that keep all tokens, so that it can
    be truncated. The mask selects the tokens that count.
    """
    from transformers.cache_utils import (
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionAndSlidingWindowAttentionLayer,
    )

    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = DynamicLayer()
        elif type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
            cache.layers[index] = LinearAttentionAndFullAttentionLayer(layer.number_of_states)
    return cache


def _is_known(cache: Any) -> bool:
    from transformers.cache_utils import (
        DummyLayer,
        DynamicCache,
        DynamicLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionLayer,
    )

    known = (DummyLayer, DynamicLayer, LinearAttentionAndFullAttentionLayer, LinearAttentionLayer)
    return type(cache) is DynamicCache and all(type(layer) in known for layer in cache.layers)


def _taken(cache: Any) -> Any:
    if not _is_known(cache):
        return deepcopy(cache)
    return [
        {part: _copied(vars(layer)[part]) for part in _PARTS if part in vars(layer)}
        for layer in cache.layers
    ]


def _put_back(state: Any, cache: Any, surplus: int) -> Any:
    """The cache as it was. surplus: minus the number of tokens read since."""
    from transformers.cache_utils import DynamicLayer

    if not _is_known(cache):
        return deepcopy(state)
    for layer, parts in zip(cache.layers, state, strict=True):
        vars(layer).update({part: _copied(values) for part, values in parts.items()})
        if isinstance(layer, DynamicLayer):
            DynamicLayer.crop(layer, surplus)
    return cache


def _copied(values: dict[int, Any]) -> dict[int, Any]:
    return {
        index: value.clone() if isinstance(value, Tensor) else value
        for index, value in values.items()
    }


def _tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 6:
        if not isinstance(value, dict | list | tuple):
            value = getattr(value, "__dict__", {})
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part, depth + 1)
