"""The number of prompt tokens per forward pass, alone and together with other answers."""

from collections.abc import Sequence

from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.generation import RunningAnswer

# Enough for full matrix speed and for dequantising the weights once for most prompts, and few
# enough for the activations to stay small.
PREFILL_CHUNK = 1024
# While other answers wait for their next token.
SHARED_CHUNK = 256
# A prompt with more unread tokens reports its progress.
REPORTED_FROM = 256
# Nothing interrupts a call, so a longer one delays Ctrl-C and the progress shown.
_CALL_SECONDS = 1.5
_STEP = 64
# The most tokens with which a prompt begins the model's answer.
_OPENING = 32
# Of two cores of a server CPU in int8, until the first call has been measured.
_TYPICAL_FLOPS = 9e11


class Chunks:
    """Divides prompts into chunks. parameters: of the model, to guess its speed before a call."""

    def __init__(self, forward: Forward, parameters: float, context: int):
        self._at_once = forward.reads_at_once
        self._adapts = forward.exact
        self._context = context
        self._alone = first_chunk(parameters) if forward.exact else PREFILL_CHUNK

    def plan(self, answers: Sequence[RunningAnswer]) -> list[SequenceInput | None]:
        """What each answer reads in the next call; None for a prompt that has to wait.

        The first prompts take all the room there is, so that one is done before the next begins.
        """
        if self._at_once:
            return [answer.next_input(self._context, len(answers)) for answer in answers]
        alone = all(answer.reading for answer in answers)
        room = self._alone if alone else SHARED_CHUNK
        inputs: list[SequenceInput | None] = []
        for answer in answers:
            if not answer.reading:
                inputs.append(answer.next_input(PREFILL_CHUNK, len(answers)))
            elif room:
                chunk = answer.next_input(room, len(answers))
                inputs.append(chunk)
                room -= len(chunk.ids)
            else:
                inputs.append(None)
        return inputs

    def measured(self, tokens: int, seconds: float) -> None:
        """Adapt the size of a chunk to the speed of the last one, where that changes no logits. A
        short one says little.
        """
        if self._adapts and tokens >= _STEP:
            self._alone = prefill_chunk(tokens / seconds)


def first_chunk(parameters: float) -> int:
    """The tokens of a model's first call, at two operations per parameter and token."""
    return prefill_chunk(_TYPICAL_FLOPS / (2 * max(parameters, 1.0)))


def prefill_chunk(speed: float) -> int:
    """The tokens of a call of about 1.5 seconds at `speed` tokens a second, in steps of 64.

    Only for an executor whose logits do not depend on what is read together: with another one the
    same prompt would get other logits on a slower machine.
    """
    return max(_STEP, min(PREFILL_CHUNK, int(speed * _CALL_SECONDS) // _STEP * _STEP))


def border(ids: list[int], stop_ids: frozenset[int]) -> int:
    """Where the last message of a prompt ends and that of the model begins, if its end is marked;
    else before the last token. A next turn may write what follows otherwise (without thoughts).
    """
    for end in range(len(ids) - 1, max(0, len(ids) - _OPENING), -1):
        if ids[end - 1] in stop_ids:
            return end
    return len(ids) - 1
