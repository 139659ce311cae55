"""One answer in progress: its unread tokens, chosen tokens, and the text that is safe to show."""

import time
from collections.abc import Callable

from torch import Tensor

from llmchat.engines import Chunk, Finish, Token
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.prompt_caches import Slot
from llmchat.engines.transformers.prompt_lookup import PromptLookup
from llmchat.engines.transformers.pytorch.sampler import Sampler


class RunningAnswer:
    """The state of an answer between two calls of the model.

    unread: ids that the model has to read before the next token can be chosen.
    """

    def __init__(
        self,
        ids: list[int],
        limit: int,
        stop_ids: frozenset[int],
        stops: tuple[str, ...],
        decode: Callable[[int], str],
        sampler: Sampler,
        drafts: PromptLookup | None,
        adapters: LiveAdapters,
        look: Callable[[int, Tensor], Token] | None,
    ):
        self.done = False
        self.prompt_tokens = len(ids)
        self.adapters = adapters
        self.prompt = ids
        self.slot: Slot | None = None
        self.unread = list(ids)
        self._limit = limit
        self._stop_ids = stop_ids
        self._filter = StopFilter(stops)
        self._decode = decode
        self._sampler = sampler
        self._drafts = drafts
        self._draft: list[int] = []
        self._look = look
        self._tokens: list[Token] = []
        self._cached = 0
        self._produced = 0
        self._started = self._first = time.perf_counter()
        self._release: Callable[[Slot], None] = lambda slot: None

    @property
    def read(self) -> int:
        """Prompt tokens that were read, cached ones included."""
        return self.prompt_tokens - len(self.unread) if self.reading else self.prompt_tokens

    @property
    def reading(self) -> bool:
        """Whether the prompt is still being read."""
        return self._produced == 0

    def start(self, slot: Slot, release: Callable[[Slot], None]) -> None:
        """Continue from the part of the prompt that a slot holds."""
        self.slot, self._release = slot, release
        self._cached = slot.cache.length
        del self.unread[: self._cached]

    def next_input(self, room: int, together: int) -> SequenceInput:
        """What to read next: at most `room` tokens of the prompt, or the last token and a draft.

        together: answers in the same call.
        """
        assert self.slot is not None
        if self.reading:
            return SequenceInput(self.slot.cache, self.unread[:room], adapters=self.adapters)
        left = self._limit - self._produced - 1
        self._draft = self._drafts.propose(min(left, room - 1), together) if self._drafts else []
        return SequenceInput(
            self.slot.cache,
            self.unread + self._draft,
            all_logits=bool(self._draft),
            adapters=self.adapters,
        )

    def take(self, part: SequenceInput, logits: Tensor) -> list[Chunk | Finish]:
        """The events of a call. logits: [1, vocab] of the last token, or [T, vocab] of each."""
        assert self.slot is not None
        self.slot.ids += part.ids
        draft, self._draft = self._draft, []
        del self.unread[: len(part.ids) - len(draft)]
        if self.unread:
            return []
        text, right = "", 0
        for row in logits:
            token = self._sampler.choose(row)
            shown, reason = self._advance(token, row)
            text += shown
            if reason:
                return self._finished(text, reason)
            if right == len(draft) or token != draft[right]:
                self.unread = [token]
                break
            right += 1
        if draft:
            self.slot.keep(len(self.slot.ids) - len(draft) + right)
        return self._chunks(text) if text else []

    def close(self) -> None:
        """Give the cache back, at the end or earlier."""
        self.done = True
        if self.slot is not None:
            slot, self.slot = self.slot, None
            self._release(slot)

    def _advance(self, token: int, logits: Tensor) -> tuple[str, str]:
        """The text that a token makes safe to show, and the reason if it ends the answer."""
        self._produced += 1
        if self._produced == 1:
            self._first = time.perf_counter()
        if token in self._stop_ids:
            return "", "stop"
        if self._drafts:
            self._drafts.feed(token)
        if self._look:
            self._tokens.append(self._look(token, logits))
        text = self._filter.feed(self._decode(token))
        return (
            text,
            "stop" if self._filter.stopped else "length" if self._produced == self._limit else "",
        )

    def _finished(self, text: str, reason: str) -> list[Chunk | Finish]:
        text += self._filter.flush()
        finish = Finish(
            reason,  # type: ignore[arg-type]
            self.prompt_tokens,
            self._cached,
            self._produced,
            self._first - self._started,
            time.perf_counter() - self._first,
            self._sampler.seed,
        )
        self.close()
        return [*(self._chunks(text) if text or self._tokens else []), finish]

    def _chunks(self, text: str) -> list[Chunk | Finish]:
        tokens, self._tokens = tuple(self._tokens), []
        return [Chunk(text, tokens)]
