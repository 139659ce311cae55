"""Ask one model one item: an answer of `chat.reply`, or likelihoods of the engine's `score`.

choice: the choice with the highest log P(answer and its stop token | prompt), in the model's own
format. With the stop token "New York" is not a prefix of "New York City", and the choices exclude
each other.
perplexity: of the plain text after the tokenizer's opening token (if it has none: bos, then eos,
as in lm-evaluation-harness), so that every byte counts. Bits per byte compare across tokenizers.
"""

import math
import time
from collections.abc import Sequence
from itertools import takewhile

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Counter, Engine
from llmchat.engines.capabilities import Scores, ScoringEngine, unwrap
from llmchat.errors import ContextOverflow, Mismatch, UsageError
from llmchat.evaluate.candidates import answer, with_system
from llmchat.evaluate.matching import Fold, matches
from llmchat.evaluate.tasks import Item
from llmchat.models.open_model import OpenModel
from llmchat.prompt import Prompt, PromptFormat
from llmchat.window import fit


class AskOptions(Struct, frozen=True):
    """Options for all items: which differences are ignored, and the first seed."""

    fold: tuple[Fold, ...] = ()
    seed: int = 0


class ChoiceScore(Struct, frozen=True):
    """One choice: its log-likelihood in nats, the number of its tokens and of its bytes."""

    choice: str
    """The text of the choice."""
    sum: float
    """Its log probability."""
    tokens: int
    """Its tokens."""
    bytes: int
    """Its bytes."""

    @property
    def per_byte(self) -> float:
        return self.sum / self.bytes


class Result(Struct, frozen=True, omit_defaults=True):
    """The result of one item.

    score: 1 or 0; for perplexity the negative log-likelihood in nats over `tokens` and `bytes`.
    """

    key: str
    """Hash of everything that determines the result."""
    model: str
    """Label of the model."""
    task: str
    """Name of the task."""
    kind: str
    """Kind of the task."""
    item: int
    """Number of the item, from 1."""
    score: float
    """1 or 0; perplexity: negative log-likelihood in nats."""
    seconds: float = 0.0
    """Time it took."""
    answer: str = ""
    """The answer."""
    expected: tuple[str, ...] = ()
    """Right answers."""
    thinking: str = ""
    """The model's reasoning before the answer."""
    finish_reason: str = ""
    """Why the answer ended."""
    prompt_tokens: int = 0
    """Tokens of the prompt."""
    reply_tokens: int = 0
    """Tokens of the answer."""
    dropped: int = 0
    """Messages that did not fit the window."""
    normalised: float | None = None
    """Choice: 1 or 0 when choices are compared per byte."""
    choices: tuple[ChoiceScore, ...] = ()
    """Log probability of each choice."""
    tokens: int = 0
    """Perplexity: tokens of the text."""
    bytes: int = 0
    """Perplexity: bytes of the text."""
    error: str = ""
    """Why it could not be asked; it counts as wrong."""


def ask(
    item: Item,
    opened: OpenModel,
    options: AskOptions,
    *,
    key: str = "",
    model: str = "",
    opening: Sequence[str] = (),
) -> Result:
    """Ask one item. An item that exceeds the context window counts as wrong, with the reason.

    Other errors are raised.
    """
    started = time.perf_counter()
    blank = Result(key, model, item.task, item.kind, item.number, 0.0)
    try:
        if item.kind == "choice":
            result = _choose(item, opened, blank)
        elif item.kind == "perplexity":
            result = _read(item, opened, blank, opening)
        else:
            result = _answer(item, opened, blank, options)
    except ContextOverflow as error:
        result = replace(blank, error=error.message)
    return replace(result, seconds=round(time.perf_counter() - started, 4))


def scorer(engine: Engine) -> ScoringEngine:
    engine = unwrap(engine)
    if not isinstance(engine, Scores):
        raise UsageError(
            f"{engine.describe()} gives no likelihoods, which choice and perplexity need",
            "exact and contains work with it",
        )
    return engine


def _answer(item: Item, opened: OpenModel, blank: Result, options: AskOptions) -> Result:
    # Each item has its own seed, so that a resumed run gives the same answers.
    sampling = replace(opened.preset.sampling, seed=options.seed + item.number)
    answered = answer(Conversation(item.messages), opened.preset, opened.engine, sampling)
    right = matches(item.kind, answered.text, item.answers, options.fold)
    return replace(
        blank,
        score=float(right),
        answer=answered.text,
        expected=item.answers,
        thinking=answered.thinking,
        finish_reason=answered.finish.reason,
        prompt_tokens=answered.finish.prompt_tokens,
        reply_tokens=answered.finish.reply_tokens,
        dropped=answered.window.dropped,
    )


def _choose(item: Item, opened: OpenModel, blank: Result) -> Result:
    engine, preset = scorer(opened.engine), opened.preset
    conversation = with_system(Conversation(item.messages), preset)
    room = max(opened.engine.count(choice) for choice in item.choices) + 8
    window, _ = fit(conversation, preset, opened.engine, engine.context, room)
    scores = score_choices(engine, preset.format, window.messages, item.choices)
    likeliest = max(range(len(scores)), key=lambda index: scores[index].sum)
    per_byte = max(range(len(scores)), key=lambda index: scores[index].per_byte)
    return replace(
        blank,
        score=float(likeliest == item.right),
        answer=item.choices[likeliest],
        expected=(item.choices[item.right],),
        normalised=float(per_byte == item.right),
        choices=scores,
        prompt_tokens=window.tokens,
        dropped=window.dropped,
    )


def score_choices(
    engine: ScoringEngine, form: PromptFormat, messages: tuple[Message, ...], choices: Sequence[str]
) -> tuple[ChoiceScore, ...]:
    """The likelihood of each choice as the complete answer to `messages`.

    A token can span the border between prompt and answer. The answer therefore begins at the first
    token in which the record differs from the prompt, at the earliest such token of all choices.
    """
    asked = engine.encode(form.render(messages))
    records = [
        engine.encode(_finished(form, (*messages, Message("assistant", choice))))
        for choice in choices
    ]
    border = max(1, min(_common(asked, ids) for ids in records))
    scores = []
    for choice, ids in zip(choices, records, strict=True):
        if len(ids) > engine.context:
            raise ContextOverflow(
                f"prompt and choice are {len(ids):,} tokens; the model holds {engine.context:,}"
            )
        likelihood = engine.score(ids)[border - 1 :].tolist()
        scores.append(
            ChoiceScore(choice, math.fsum(likelihood), len(likelihood), len(choice.encode()))
        )
    return tuple(scores)


def _finished(form: PromptFormat, messages: tuple[Message, ...]) -> Prompt:
    """The record up to the answer's stop token, without what a template adds after it."""
    try:
        record = form.render(messages)
    except Mismatch as error:
        raise Mismatch(
            error.message, "its choices cannot be scored; exact and contains work with it"
        ) from error
    end = record.learn[-1][1]
    quoted = tuple((start, min(stop, end)) for start, stop in record.quoted if start < end)
    return replace(record, text=record.text[:end], quoted=quoted)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _read(item: Item, opened: OpenModel, blank: Result, opening: Sequence[str]) -> Result:
    engine = scorer(opened.engine)
    limit = min(opened.preset.context.tokens or engine.context, engine.context)
    scores = score_text(engine, bare(opened.engine, item.text, opening), limit)
    return replace(
        blank, score=-math.fsum(scores), tokens=len(scores), bytes=len(item.text.encode())
    )


def bare(engine: Counter, text: str, opening: Sequence[str]) -> list[int]:
    """Token ids of a plain text after one opening token; special tokens spelt in it are text.

    opening: candidates for the opening token if the tokenizer adds none; the first that is one
    token
    is used.
    """
    lead = ""
    if not engine.encode(Prompt("", ())):
        lead = next((mark for mark in opening if len(engine.encode(Prompt(mark, ()))) == 1), "")
    return engine.encode(Prompt(lead + text, (), quoted=((len(lead), len(lead) + len(text)),)))


def score_text(engine: ScoringEngine, ids: list[int], limit: int) -> list[float]:
    """Log-probabilities of all tokens of `ids` but the first, for a window of `limit` tokens.

    A longer text is read in windows that overlap by half, so that every token has at least half a
    window of context and counts once.
    """
    scores: list[float] = engine.score(ids[:limit]).tolist() if len(ids) > 1 else []
    while len(scores) < len(ids) - 1:
        start = len(scores) + 1 - limit // 2
        window = engine.score(ids[start : start + limit]).tolist()
        scores += window[limit // 2 - 1 :]
    return scores
