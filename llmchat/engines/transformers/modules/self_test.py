"""Whether a model gives from its cache the numbers that it gives cold. Architectures that do not are not run.

transformers knows some two hundred causal architectures, each with its own way to keep what was read, and some lose it on the way that a chat
takes: a prompt in pieces, then token by token, beside other texts. Their answers would be fluent and wrong. So the first time a
model is loaded, twenty tokens are read in both ways.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.errors import LlmchatError, Mismatch

TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day at five in the afternoon."
TOKENS = 20
# Where the warm run pauses: a prompt, more of it behind, then single tokens.
_FIRST, _SECOND = 8, 14
# Relative errors of logits. Rounding makes 1e-5 in fp32 and some hundredths in 16 bits, a past that was lost about 1.
_LIMITS = {torch.float32: 2e-3}
_LIMIT_16 = 0.4


def check(forward: Any, ids: Sequence[int], name: str, proven: Path | None = None) -> None:
    """Raise Mismatch for a model that cannot be relied on. name: of its architecture. proven: a file that says that this was done."""
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
            f"the architecture `{name}` is not run here: read in pieces it gives other answers than read at once",
            "a GGUF of it runs in llama.cpp (--engine gguf)",
        )
    if proven is not None:
        proven.parent.mkdir(parents=True, exist_ok=True)
        proven.touch()


def refusal(name: str, error: Exception) -> Mismatch:
    """What to say of an architecture that transformers' modules do not run in the way they are called here."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return Mismatch(
        f"the architecture `{name}` cannot be run here: {reason}",
        "a GGUF of it runs in llama.cpp (--engine gguf)",
    )


def difference(forward: Any, ids: list[int]) -> float:
    """The largest of the typical errors of the three ways to read: several tokens behind others, one by one, and again after a cut."""
    with torch.inference_mode():
        cold = forward.run([SequenceInput(forward.new_cache(), ids, all_logits=True)])[0].float()
        cache, other = forward.new_cache(), forward.new_cache()
        _last(forward, cache, ids[:_FIRST])
        # Another text in between must leave no trace.
        _last(forward, other, ids[::-1][:_FIRST])
        behind = forward.run([SequenceInput(cache, ids[_FIRST:_SECOND], all_logits=True)])[
            0
        ].float()
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
        _typical(behind, cold[_FIRST:_SECOND]),
        _typical(singles, cold[_SECOND:]),
        _typical(again, cold[_SECOND:]),
    )


def _typical(warm: Sequence[Tensor] | Tensor, cold: Tensor) -> float:
    """The median of the errors: one token whose experts are others by a hair proves nothing."""
    errors = sorted(map(_error, warm, cold))
    return errors[len(errors) // 2]


def _last(forward: Any, cache: Any, ids: list[int]) -> Tensor:
    """Logits [vocab] after the last of these tokens."""
    logits: Tensor = forward.run([SequenceInput(cache, ids)])[0][-1].float()
    return logits


def _error(warm: Tensor, cold: Tensor) -> float:
    error = (warm - cold).norm() / (cold - cold.mean()).norm().clamp_min(1e-9)
    return float(error.nan_to_num(torch.inf))
