"""Texts of encoder-decoders (T5): the encoder reads a whole prompt, the decoder writes the answer.

The first tokens that are read of a text are its prompt, the next ones those of its answer. In the
encoder every token attends to every other one, so only the same prompt, asked again, is encoded
already.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.pytorch.kv_cache import KVCache

Encode = Callable[[Sequence[SequenceInput]], None]
Decode = Callable[[Sequence[SequenceInput]], list[Tensor]]


class EncodedCache:
    """source: the memories of a prompt. target: the keys and values of its answer, whose first
    position is that of the start token. It takes the place of the prompt's last token in `length`:
    a prompt that is encoded and has no answer yet is read but for one token.
    """

    def __init__(self, source: KVCache, target: KVCache):
        self.source, self.target = source, target
        self.prompt: list[int] = []
        self.adapters: LiveAdapters = ()

    @property
    def length(self) -> int:
        return len(self.prompt) - 1 + self.target.length if self.prompt else 0

    def holds(self, prompt: Sequence[int]) -> bool:
        """See executor.HoldsPrompt."""
        return self.prompt == prompt

    def truncate(self, length: int) -> int:
        """See executor.Cache. A part of a prompt is of no use."""
        answered = length - (len(self.prompt) - 1)
        if answered < 0:
            self.clear()
        else:
            self.target.truncate(answered)
        return self.length

    def clear(self) -> None:
        """Forget the prompt and its answer."""
        self.prompt = []
        self.source.clear()
        self.target.clear()

    def whole_prompt(self, ids: Sequence[int]) -> list[int]:
        """The prompt whose last tokens are `ids`, before there is an answer."""
        return [*self.prompt[:-1], *ids]


def run(
    encode: Encode, decode: Decode, start: int, sequences: Sequence[SequenceInput]
) -> list[Tensor]:
    """Read the next tokens of texts. encode: reads whole prompts into the memories of caches;
    decode: tokens of answers, the first of which is `start`.
    """
    begun = [sequence for sequence in sequences if not sequence.cache.target.length]
    try:
        _encode(encode, begun)
        return decode([_in_decoder(sequence, start) for sequence in sequences])
    except BaseException:
        for sequence in begun:
            sequence.cache.clear()
        raise


def _encode(encode: Encode, begun: Sequence[SequenceInput]) -> None:
    """Encode the prompts that are not encoded already."""
    prompts = [(one, one.cache.whole_prompt(one.ids)) for one in begun]
    unread = [
        (one, prompt)
        for one, prompt in prompts
        if not one.cache.holds(prompt) or one.adapters != one.cache.adapters
    ]
    if not unread:
        return
    for one, _ in unread:
        one.cache.clear()
    encode([replace(one, cache=one.cache.source, ids=prompt) for one, prompt in unread])
    for one, prompt in unread:
        one.cache.prompt, one.cache.adapters = prompt, one.adapters
        one.cache.target.see(one.cache.source)


def _in_decoder(sequence: SequenceInput, start: int) -> SequenceInput:
    target = sequence.cache.target
    if target.length:
        return replace(sequence, cache=target)
    return replace(sequence, cache=target, ids=[start])
