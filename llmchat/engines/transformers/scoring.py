"""The likelihood of a text under a loaded model, without making an answer."""

import torch
from torch import Tensor

from llmchat.engines.transformers import memory_check
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.prefill import PREFILL_CHUNK
from llmchat.engines.transformers.prompt_caches import Slots
from llmchat.errors import UsageError

# Tokens scored at once: their logits are SCORE_CHUNK x vocabulary numbers in fp32.
SCORE_CHUNK = 256


def next_logits(forward: Forward, slots: Slots, ids: list[int], adapters: LiveAdapters) -> Tensor:
    """Logits [vocab] of the token after `ids`, read through the prompt caches like a prompt."""
    slot = slots.take(ids, adapters)
    if slot is None:
        raise UsageError("the engine is busy")
    try:
        size = len(ids) if forward.reads_at_once else PREFILL_CHUNK
        for start in range(slot.cache.length, len(ids), size):
            chunk = ids[start : start + size]
            with memory_check.reported(), torch.inference_mode():
                sequence = SequenceInput(slot.cache, chunk, adapters=slot.adapters)
                (logits,) = forward.run([sequence])
            slot.ids += chunk
    finally:
        slots.give_back(slot)
    return logits[-1]


def log_likelihoods(forward: Forward, ids: list[int], adapters: LiveAdapters) -> Tensor:
    """Log-probabilities [T - 1] of each token of `ids` after the ones before it, read cold."""
    cache, scores = forward.new_cache(), []
    size = len(ids) if forward.reads_at_once else SCORE_CHUNK
    for start in range(0, len(ids) - 1, size):
        chunk = ids[start:-1][:size]
        with memory_check.reported(), torch.inference_mode():
            sequence = SequenceInput(cache, chunk, True, adapters, whole=len(ids))
            logits = forward.run([sequence])[0].float()
        following = torch.tensor(ids[start + 1 :][:size], device=logits.device)
        scores.append(logits.log_softmax(-1).gather(1, following[:, None])[:, 0])
    return torch.cat(scores)
