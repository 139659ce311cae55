"""One answer in progress: its unread tokens, chosen tokens, and the text that is safe to show."""

import time
from collections.abc import Callable

from torch import Tensor

from llmchat.engines import Chunk, Finish, Token
from llmchat.engines.guide import Guide
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.prompt_caches import Slot
from llmchat.engines.transformers.prompt_lookup import PromptLookup
from llmchat.engines.transformers.pytorch.sampler import Sampler


class RunningAnswer:
    """The state of an answer between two calls of the model.

    unread: ids that the model has to read before the next token can be chosen. guide: what may
    come next, None for anything. Tokens that it forces are read together with the token before
    them; only with log-probabilities each is looked at like a draft.
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
        guide: Guide | None = None,
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
        self._guide = guide
        # Tokens that are certain to come next, in addition to those of the draft.
        self._forced: list[int] = []
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
        self._draft = self._propose(room, together)
        return SequenceInput(
            self.slot.cache,
            self.unread[:room] + self._draft,
            all_logits=bool(self._draft),
            adapters=self.adapters,
        )

    def _propose(self, room: int, together: int) -> list[int]:
        """Tokens that may follow the last one: certain ones, or some of earlier text."""
        if len(self.unread) > 1:
            return []
        left = min(self._limit - self._produced, room) - 1
        if self._forced:
            return self._forced[:left]
        draft = self._drafts.propose(left, together) if self._drafts else []
        return self._guide.plausible(draft) if self._guide and draft else draft

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
            token = self._choose(row)
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
        if self._forced and self._look is None:
            shown, reason = self._write_forced()
            text += shown
            if reason:
                return self._finished(text, reason)
        return self._chunks(text) if text else []

    def _choose(self, logits: Tensor) -> int:
        """The next token. logits: [vocab]"""
        if self._forced:
            self._sampler.record(self._forced[0])
            return self._forced.pop(0)
        return self._sampler.choose(logits, self._guide.mask() if self._guide else None)

    def _write_forced(self) -> tuple[str, str]:
        """The text of the certain tokens, which the model reads in the next call."""
        text = reason = ""
        while self._forced and not reason:
            token = self._forced.pop(0)
            self._sampler.record(token)
            self.unread.append(token)
            shown, reason = self._advance(token, None)
            text += shown
        return text, reason

    def close(self) -> None:
        """Give the cache back, at the end or earlier."""
        self.done = True
        if self.slot is not None:
            slot, self.slot = self.slot, None
            self._release(slot)

    def _advance(self, token: int, logits: Tensor | None) -> tuple[str, str]:
        """The text that a token makes safe to show, and the reason if it ends the answer."""
        self._produced += 1
        if self._produced == 1:
            self._first = time.perf_counter()
        if token in self._stop_ids:
            return "", "stop"
        if self._drafts:
            self._drafts.feed(token)
        if self._guide:
            self._follow(self._guide, token)
        if self._look and logits is not None:
            self._tokens.append(self._look(token, logits))
        text = self._filter.feed(self._decode(token))
        if self._filter.stopped or (self._guide and self._guide.done):
            return text, "stop"
        return text, "length" if self._produced == self._limit else ""

    def _follow(self, guide: Guide, token: int) -> None:
        guide.accept(token)
        if not self._forced:
            self._forced = guide.forced()

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
