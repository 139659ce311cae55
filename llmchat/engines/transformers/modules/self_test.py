"""Tests that a model gives the same logits from its cache as cold; others are not run.

transformers supports about two hundred causal architectures, each with its own cache. Some lose
the past when a prompt is read in pieces, then token by token, and between other texts: their
answers would be fluent and wrong. So on the first load of a model, twenty tokens are read in both
ways.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.errors import LlmchatError, Mismatch

TEXT = (
    "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day at five"
    " in the afternoon."
)
TOKENS = 20
# The warm run reads up to here, then up to there, then single tokens.
_FIRST, _SECOND = 8, 14
# Relative errors of logits. Rounding causes 1e-5 in fp32 and a few hundredths in 16 bits; a lost
# past causes about 1.
_LIMITS = {torch.float32: 2e-3}
_LIMIT_16 = 0.4


def check(forward: Any, ids: Sequence[int], name: str, proven: Path | None = None) -> None:
    """Raise Mismatch for a model that fails.

    name: of its architecture. proven: a file that records a success, written after one.
    """
    if proven is not None and proven.exists():
        return
    try:
        found = difference(forward, (list(ids) * TOKENS)[:TOKENS])
    except (LlmchatError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise refusal(name, error) from error
    if found > _LIMITS.get(forward.dtype, _LIMIT_16):
        raise Mismatch(
            f"the architecture `{name}` is not supported: a prompt read in pieces gives other"
            " answers than one read at once",
            "a GGUF of it runs in llama.cpp (--engine gguf)",
        )
    if proven is not None:
        proven.parent.mkdir(parents=True, exist_ok=True)
        proven.touch()


def refusal(name: str, error: Exception) -> Mismatch:
    """The error for an architecture whose modules cannot be called the way they are here."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return Mismatch(
        f"the architecture `{name}` cannot be run: {reason}",
        "a GGUF of it runs in llama.cpp (--engine gguf)",
    )


def difference(forward: Any, ids: list[int]) -> float:
    """The largest typical error of three warm ways to read: several tokens after others, one by
    one, and again after a truncation.
    """
    with torch.inference_mode():
        cold = forward.run([SequenceInput(forward.new_cache(), ids, all_logits=True)])[0].float()
        cache, other = forward.new_cache(), forward.new_cache()
        _last(forward, cache, ids[:_FIRST])
        # A text in between must have no effect.
        _last(forward, other, ids[::-1][:_FIRST])
        more = forward.run([SequenceInput(cache, ids[_FIRST:_SECOND], all_logits=True)])[0].float()
        singles = []
        for index in range(_SECOND, len(ids)):
            singles.append(_last(forward, cache, ids[index : index + 1]))
            _last(forward, other, ids[index : index + 1])
        kept = cache.truncate(_SECOND)
        again = [_last(forward, cache, ids[kept : _SECOND + 1])]
        again += [
            _last(forward, cache, ids[index : index + 1]) for index in range(_SECOND + 1, len(ids))
        ]
    return max(
        _typical(more, cold[_FIRST:_SECOND]),
        _typical(singles, cold[_SECOND:]),
        _typical(again, cold[_SECOND:]),
    )


def _typical(warm: Sequence[Tensor] | Tensor, cold: Tensor) -> float:
    """The median of the errors: a token can get other experts by rounding alone."""
    errors = sorted(map(_error, warm, cold))
    return errors[len(errors) // 2]


def _last(forward: Any, cache: Any, ids: list[int]) -> Tensor:
    """Logits [vocab] after the last of these tokens."""
    logits: Tensor = forward.run([SequenceInput(cache, ids)])[0][-1].float()
    return logits


def _error(warm: Tensor, cold: Tensor) -> float:
    error = (warm - cold).norm() / (cold - cold.mean()).norm().clamp_min(1e-9)
    return float(error.nan_to_num(torch.inf))
