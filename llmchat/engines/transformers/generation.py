"""One answer in progress: its unread tokens, chosen tokens, and the text that is safe to show."""

import logging
import time
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from llmchat.engines import Chunk, Finish, Token
from llmchat.engines.guide import CannotGoOn, Guide
from llmchat.engines.stream_filters import StopFilter
from llmchat.engines.transformers.executor import KeepsStates, SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters
from llmchat.engines.transformers.prompt_caches import Slot
from llmchat.engines.transformers.prompt_lookup import Drafts
from llmchat.engines.transformers.pytorch.sampler import Sampler

log = logging.getLogger("llmchat.engines")


class RunningAnswer:
    """The state of an answer between two calls of the model.

    unread: ids that the model has to read before the next token can be chosen. guide: what may come
    next, None for anything; tokens that it forces are read together with what is before them, or
    like a draft if each has to be looked at. failure: why the guide could not go on; the answer is
    cut there. separate: the prompt is not read as part of the answer's text. border: where the part
    of the prompt ends that the next turn's prompt is likely to begin with, too.
    """

    def __init__(
        self,
        ids: list[int],
        limit: int,
        stop_ids: frozenset[int],
        stops: tuple[str, ...],
        decode: Callable[[int], str],
        sampler: Sampler,
        drafts: Drafts | None,
        adapters: LiveAdapters,
        look: Callable[[int, Tensor], Token] | None,
        guide: Guide | None = None,
        separate: bool = False,
        border: int = 0,
    ):
        self.done = False
        self.failure: CannotGoOn | None = None
        self.prompt_tokens = len(ids)
        self.adapters = adapters
        self.prompt = ids
        self.slot: Slot | None = None
        self.unread = list(ids)
        self._border = border
        self._states: KeepsStates | None = None
        self._limit = limit
        self._stop_ids = stop_ids
        self._filter = StopFilter(stops)
        self._decode = decode
        self._sampler = sampler
        self._drafts = drafts
        self._draft: list[int] = []
        self._look = look
        self._guide = guide
        # Tokens that are certain to come next.
        self._forced = guide.forced() if guide else []
        # The first of them are read with the prompt, if that one is part of the same text.
        self._ahead = [] if look or separate else self._forced[:limit]
        self.unread += self._ahead
        # Text and tokens that were not returned yet, and why the answer ends, once it does.
        self._text = ""
        self._tokens: list[Token] = []
        self._reason: Literal["", "stop", "length"] = ""
        self._cached = 0
        self._produced = 0
        self._started = self._first = time.perf_counter()
        self._release: Callable[[Slot], None] = lambda slot: None

    @property
    def read(self) -> int:
        """Prompt tokens that were read, cached ones included."""
        left = max(0, len(self.unread) - len(self._ahead)) if self.reading else 0
        return self.prompt_tokens - left

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the slot held already."""
        return self._cached

    @property
    def reading(self) -> bool:
        """Whether the prompt is still being read."""
        return self._produced == 0

    def start(self, slot: Slot, release: Callable[[Slot], None]) -> None:
        """Continue from the part of the prompt that a slot holds."""
        self.slot, self._release = slot, release
        self._cached = slot.cache.length
        del self.unread[: self._cached]
        if isinstance(slot.cache, KeepsStates) and slot.cache.has_states:
            self._states = slot.cache
            if self._cached:
                slot.cache.keep_states()

    def next_input(self, room: int, together: int) -> SequenceInput:
        """What to read next: at most `room` tokens of the prompt, or the last token and a draft.

        together: answers in the same call.
        """
        assert self.slot is not None
        if self.reading:
            room = self._room_before_border(room)
            return SequenceInput(self.slot.cache, self.unread[:room], adapters=self.adapters)
        self._draft = self._propose(room, together)
        if self._draft and self._states:
            self._states.mark_states()
        return SequenceInput(
            self.slot.cache,
            self.unread[:room] + self._draft,
            all_logits=bool(self._draft),
            adapters=self.adapters,
        )

    def _room_before_border(self, room: int) -> int:
        """At most what is left before the border, where states are copied."""
        assert self.slot is not None
        left = self._border - self.slot.cache.length
        return min(room, left) if self._states and left > 0 else room

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
        if self._states and len(self.slot.ids) == self._border:
            self._states.keep_states()
        draft, self._draft = self._draft, []
        del self.unread[: len(part.ids) - len(draft)]
        if self.unread:
            return []
        try:
            self._take_tokens(logits, draft)
        except CannotGoOn as error:
            log.warning("an answer was cut: %s", error)
            self.failure, self._reason = error, "length"
        return self._new_events()

    def _take_tokens(self, logits: Tensor, draft: list[int]) -> None:
        """Add what was certain before, a token for each row, and what is certain after them."""
        self._write_forced(len(self._ahead))
        self._ahead = []
        if self._guide and self._guide.done:
            self._reason = "stop"
        self._take_rows(logits, draft)
        if self._look is None and not self._reason:
            self.unread += self._forced
            self._write_forced(len(self._forced))

    def _take_rows(self, logits: Tensor, draft: list[int]) -> None:
        """Choose a token after each row, as long as the draft is right."""
        assert self.slot is not None
        right = 0
        for row in logits:
            if self._reason:
                return
            token = self._choose(row)
            self._advance(token, row)
            if right == len(draft) or token != draft[right]:
                self.unread = [token]
                break
            right += 1
        if draft:
            self._keep(len(self.slot.ids) - len(draft) + right)

    def _keep(self, length: int) -> None:
        """Forget the wrong tokens of a draft. Those before them that the cache has to forget, too,
        are read again.
        """
        assert self.slot is not None
        right = self.slot.ids[:length]
        self.unread = right[self.slot.keep(length) :] + self.unread

    def _choose(self, logits: Tensor) -> int:
        """The next token. logits: [vocab]"""
        if self._forced:
            self._sampler.record(self._forced[0])
            return self._forced.pop(0)
        return self._sampler.choose(logits, self._guide.mask() if self._guide else None)

    def _write_forced(self, count: int) -> None:
        """Add so many certain tokens to the answer."""
        while count and not self._reason:
            token, count = self._forced.pop(0), count - 1
            self._sampler.record(token)
            self._advance(token, None)

    def close(self) -> None:
        """Give the cache back, at the end or earlier."""
        self.done = True
        self._guide = None
        if self._drafts:
            self._drafts.close()
        if self.slot is not None:
            slot, self.slot = self.slot, None
            self._release(slot)

    def _advance(self, token: int, logits: Tensor | None) -> None:
        """Add a token to the answer. logits: those it was chosen from, unless it was certain."""
        self._produced += 1
        if self._produced == 1:
            self._first = time.perf_counter()
        if token in self._stop_ids:
            self._reason = "stop"
            return
        if self._drafts:
            self._drafts.feed(token)
        if self._guide:
            self._follow(self._guide, token)
        if self._look and logits is not None:
            self._tokens.append(self._look(token, logits))
        self._text += self._filter.feed(self._decode(token))
        if self._filter.stopped or (self._guide and self._guide.done):
            self._reason = "stop"
        elif self._produced == self._limit:
            self._reason = "length"

    def _follow(self, guide: Guide, token: int) -> None:
        guide.accept(token)
        if not self._forced:
            self._forced = guide.forced()

    def _new_events(self) -> list[Chunk | Finish]:
        """What was added since the last call, and the end if it was reached."""
        if not self._reason:
            return self._chunks() if self._text else []
        self._text += self._filter.flush()
        finish = Finish(
            self._reason,
            self.prompt_tokens,
            self._cached,
            self._produced,
            self._first - self._started,
            time.perf_counter() - self._first,
            self._sampler.seed,
            self._filter.stop,
        )
        self.close()
        return [*(self._chunks() if self._text or self._tokens else []), finish]

    def _chunks(self) -> list[Chunk | Finish]:
        text, tokens, self._text, self._tokens = self._text, tuple(self._tokens), "", []
        return [Chunk(text, tokens)]
