"""Speculative decoding (Leviathan et al. 2023) with a small model of the same vocabulary.

The small model proposes its most likely tokens one by one. The large one reads them in one call and
keeps those that it would have chosen itself, so that no token of an answer changes: greedy or
drawn, its sampler chooses each of them. What a proposal costs and how often it is right is measured
while answers are written. A draft ends where another token costs more than its chance saves, and
where drafts do not pay at all, they pause.
"""

import math
import time
from collections.abc import Sequence

import torch

from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.loading import LoadedModel
from llmchat.engines.transformers.prompt_caches import Slot, Slots
from llmchat.engines.transformers.prompt_lookup import MOST, PASS_ROWS, PromptLookup
from llmchat.engines.transformers.vocabulary import vocabulary_of
from llmchat.errors import Mismatch
from llmchat.parse_guard import shown

# How much one measurement changes an average.
_STEP = 1 / 16
# A step of the small model beside one of the large model, before it is measured.
_FIRST_COST = 0.4
# What drafts save of the time of a token, before it is measured: a prompt that the small model has
# not read is read once the answer could have saved as much.
_FIRST_SAVING = 0.25
# Unread tokens that are read at once in any case, and the most in one call.
_FEW, _PIECE = 64, 256
# Rounds of drafts after which they are judged, and the tokens of the first pause and the longest.
_TRIAL, _PAUSE, _LONGEST_PAUSE = 12, 16, 256
_BUCKETS = 10


class Chances:
    """How often a token is right, by the probability that the small model gives it."""

    def __init__(self) -> None:
        self._found = [(index + 0.5) / _BUCKETS for index in range(_BUCKETS)]
        self.mean = 0.7

    def of(self, probability: float) -> float:
        """Between the measured ones."""
        place = min(max(probability * _BUCKETS - 0.5, 0.0), _BUCKETS - 1.0)
        low = min(int(place), _BUCKETS - 2)
        part = place - low
        return (1 - part) * self._found[low] + part * self._found[low + 1]

    def count(self, probability: float, is_right: bool) -> None:
        bucket = min(int(probability * _BUCKETS), _BUCKETS - 1)
        self._found[bucket] += _STEP * (is_right - self._found[bucket])
        self.mean += _STEP * (is_right - self.mean)


class Average:
    """Of measurements, the last ones above all; 0 without any. The first one is left out: memory
    is still cold.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._count = -1

    def add(self, value: float) -> None:
        self._count += 1
        if self._count:
            self.value += max(_STEP, 1 / self._count) * (value - self.value)


class Pace:
    """Seconds of a call of each model with one row, measured, and what a further row of the large
    one costs, as a part of that; and whether drafts pay.
    """

    def __init__(self) -> None:
        self._large, self._small, self._row = Average(), Average(), Average()
        self._tokens = self._seconds = 0.0
        self._rounds, self._left, self._pause = 0, 0, _PAUSE

    @property
    def cost(self) -> float:
        """What a step of the small model and a further row of the large one take, in calls of the
        large one.
        """
        small, large = self._small.value, self._large.value
        return (small / large if small and large else _FIRST_COST) + self.row

    @property
    def row(self) -> float:
        """A further row of the large model, in calls of it."""
        return self._row.value or 1 / PASS_ROWS

    @property
    def rate(self) -> float:
        """Tokens in the time of a call of the large model; 1 without drafts."""
        if self._rounds < _TRIAL or not self._large.value:
            return 1.0
        return self._tokens * self._large.value / self._seconds

    @property
    def pauses(self) -> bool:
        return self._left > 0

    def passed(self, rows: int, seconds: float) -> None:
        """Count a call of the large model."""
        if rows > 1 and self._large.value:
            more = (seconds / self._large.value - 1) / (rows - 1)
            self._row.add(min(max(more, 0.0), 1.0))
        else:
            self._large.add(seconds / (1 + (rows - 1) * self.row))
        self._left = max(0, self._left - 1)

    def stepped(self, rows: int, seconds: float) -> None:
        """Count a call of the small model. Those of a prompt say little about one row."""
        if rows <= 2:
            self._small.add(seconds)

    def finished(self, tokens: int, seconds: float) -> None:
        """Count a round: a draft and the call that checked it."""
        self._rounds += 1
        share = max(_STEP, 1 / self._rounds)
        self._tokens += share * (tokens - self._tokens)
        self._seconds += share * (seconds - self._seconds)
        if self._rounds < _TRIAL:
            return
        if self.rate > 1:
            self._pause = _PAUSE
            return
        self._left, self._rounds = self._pause, 0
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def check_draft(small: LoadedModel, large: LoadedModel, name: str) -> None:
    """Raise Mismatch for a model that cannot draft for another one."""
    if not large.forward.exact:
        raise Mismatch(
            "a draft model requires the compiled step: int8 or quantised weights on a CPU",
            "leave --draft out",
        )
    if small.forward.separate_encoder or large.forward.separate_encoder:
        raise Mismatch(f"{name} cannot draft: encoder-decoders take no drafts")
    if getattr(small.forward.new_cache(), "has_states", False):
        raise Mismatch(
            f"{name} cannot draft: its recurrent state cannot go back to an earlier token",
            "a draft model has attention only",
        )
    if difference := _first_difference(small, large):
        raise Mismatch(
            f"{name} has another vocabulary than the model it drafts for: {difference}",
            "a draft model is a smaller one of the same family",
        )


def _first_difference(small: LoadedModel, large: LoadedModel) -> str:
    """The first token that two vocabularies spell otherwise; "" for the same."""
    count = max(vocabulary_of(one.shapes) for one in (small, large))
    mine, theirs = (one.tokens.spellings(count) for one in (small, large))
    if mine == theirs:
        return ""
    index = next(n for n, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
    return f"token {index:,} is {_quoted(mine[index])} and {_quoted(theirs[index])}"


def _quoted(spelling: bytes) -> str:
    return f"`{shown(spelling.decode('utf-8', 'replace'))}`" if spelling else "none"


class DraftModel:
    """A small model that drafts for the answers of a large one. vocabulary: the ids that both have.

    proposed, right: the tokens of all drafts, and those that were kept.
    """

    def __init__(self, forward: Forward, slots: Slots, vocabulary: int, name: str):
        self.forward, self.slots = forward, slots
        self.vocabulary, self.name = vocabulary, name
        self.pace, self.chances = Pace(), Chances()
        self.proposed = self.right = 0

    def begin(self, prompt_ids: list[int]) -> "ModelDrafts":
        return ModelDrafts(self, prompt_ids)


class ModelDrafts:
    """The drafts of one answer, see prompt_lookup.Drafts. Text that repeats is drafted without the
    small model.
    """

    def __init__(self, model: DraftModel, prompt_ids: list[int]):
        self._model = model
        self._ids = list(prompt_ids)
        self._prompt = len(prompt_ids)
        self._is_known = max(prompt_ids) < model.vocabulary
        self._lookup = PromptLookup(prompt_ids)
        self._slot: Slot | None = None
        # Tokens of the last draft that were not compared yet, and their probabilities.
        self._pending: list[tuple[int, float]] = []
        # Times of the last draft: begun, proposed (0: checked already), and its last token.
        self._began_at = self._proposed_at = self._fed_at = 0.0
        self._rows = self._kept = 0
        self._by_model = False

    def feed(self, token: int) -> None:
        """See prompt_lookup.Drafts."""
        self._fed_at = time.perf_counter()
        if self._proposed_at:
            self._model.pace.passed(self._rows, self._fed_at - self._proposed_at)
            self._proposed_at = 0.0
        if self._pending:
            self._compare(token)
        self._kept += 1
        self._lookup.feed(token)
        self._ids.append(token)
        self._is_known = self._is_known and token < self._model.vocabulary

    def propose(self, room: int, together: int = 1) -> list[int]:
        """See prompt_lookup.Drafts. With several answers in a call the small model is not asked."""
        self._finish_round()
        self._began_at, self._kept = time.perf_counter(), 0
        draft = self._lookup.propose(room, together)
        self._by_model = not draft and room > 0 and together == 1 and self._may_draft()
        if self._by_model:
            draft = self._draft(min(room, MOST))
        if together == 1:
            self._rows, self._proposed_at = 1 + len(draft), time.perf_counter()
        return draft

    def close(self) -> None:
        """See prompt_lookup.Drafts."""
        if self._slot is not None:
            slot, self._slot = self._slot, None
            self._model.slots.give_back(slot)

    def _compare(self, token: int) -> None:
        (drafted, probability), self._pending = self._pending[0], self._pending[1:]
        is_right = drafted == token
        self._model.chances.count(probability, is_right)
        self._model.right += is_right
        if not is_right:
            self._pending = []

    def _finish_round(self) -> None:
        if self._by_model and self._kept:
            self._model.pace.finished(self._kept, self._fed_at - self._began_at)
        self._pending, self._by_model = [], False

    def _may_draft(self) -> bool:
        """Whether drafts pay, and what is unread is worth reading."""
        model = self._model
        if model.pace.pauses or not self._is_known or not self._take_slot():
            return False
        assert self._slot is not None
        unread = len(self._ids) - len(self._slot.ids)
        answered = len(self._ids) - self._prompt
        cost = max(0.0, model.pace.cost - model.pace.row) * unread / PASS_ROWS
        return unread <= _FEW or answered * _FIRST_SAVING >= cost

    def _take_slot(self) -> bool:
        if self._slot is None:
            self._slot = self._model.slots.take(self._ids, ())
        return self._slot is not None

    def _draft(self, room: int) -> list[int]:
        """Tokens as long as the next one is worth its cost."""
        model, draft, chance = self._model, list[int](), 1.0
        unread = self._unread()
        while len(draft) < room:
            token, probability = self._next(unread)
            if token >= model.vocabulary:
                break
            chance *= model.chances.of(probability)
            if chance < model.pace.rate * model.pace.row:
                break
            draft.append(token)
            self._pending.append((token, probability))
            if chance * model.chances.mean <= model.pace.rate * model.pace.cost:
                break
            unread = [token]
        model.proposed += len(draft)
        return draft

    def _unread(self) -> list[int]:
        """The tokens of the text that the small model has not read, after forgetting wrong ones."""
        assert self._slot is not None
        pairs = zip(self._slot.ids, self._ids[:-1], strict=False)
        same = next((n for n, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        if same is None:
            same = min(len(self._slot.ids), len(self._ids) - 1)
        return self._ids[self._slot.keep(same) :]

    def _next(self, unread: Sequence[int]) -> tuple[int, float]:
        """The most likely token after these, and its probability."""
        assert self._slot is not None
        forward, slot = self._model.forward, self._slot
        size = len(unread) if forward.reads_at_once else _PIECE
        for first in range(0, len(unread), size):
            piece, started = list(unread[first : first + size]), time.perf_counter()
            (logits,) = forward.run([SequenceInput(slot.cache, piece)])
            slot.ids += piece
            self._model.pace.stepped(len(piece), time.perf_counter() - started)
        row = logits[-1].float()
        best = row.max(-1)
        probability = math.exp(float(best.values - torch.logsumexp(row, -1)))
        return int(best.indices), probability if math.isfinite(probability) else 0.0
