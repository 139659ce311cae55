"""Summarise results: a row for each task and model, and differences to the first model."""

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from llmchat.evaluate.measure import Result
from llmchat.evaluate.statistics import Interval, Paired, paired_ratio, paired_shares, ratio, wilson


class Row(Struct, frozen=True, omit_defaults=True):
    """The results of one model on one task."""

    task: str
    """Name of the task."""
    kind: str
    """`exact`, `contains`, `choice` or `perplexity`; for the harness its metric."""
    model: str
    """Label of the model."""
    n: int
    """Number of items."""
    score: float
    """Fraction of right answers, perplexity, or mean of the metric."""
    interval: Interval | None
    """95 % interval of the score."""
    seconds: float
    """Time for all items."""
    share: bool = True
    """Whether the score is a fraction."""
    normalised: float | None = None
    """Choice: score when choices are compared per byte."""
    normalised_interval: Interval | None = None
    """Its 95 % interval."""
    bits_per_byte: float | None = None
    """Perplexity: bits per byte."""
    bits_per_byte_interval: Interval | None = None
    """Its 95 % interval."""
    errors: int = 0
    """Items that could not be asked; they count as wrong."""
    dropped: int = 0
    """Items whose messages did not fit the window."""


class Difference(Struct, frozen=True):
    """Another model against the first, on the items that both have.

    unit: points (of 100), bits per byte (less is better), or the unit of the metric.
    """

    task: str
    kind: str
    model: str
    against: str
    unit: str
    paired: Paired

    @property
    def verdict(self) -> str:
        interval = self.paired.interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "no clear difference"
        if self.unit not in ("points", "bits per byte"):
            return "higher" if interval[0] > 0 else "lower"
        return "better" if (interval[0] > 0) == (self.unit == "points") else "worse"


Groups = dict[tuple[str, str], dict[str, list[Result]]]


def rows(results: Sequence[Result]) -> list[Row]:
    """The table; tasks and models keep their order."""
    return [
        _row(task, kind, model, found)
        for (task, kind), models in _grouped(results).items()
        for model, found in models.items()
    ]


def differences(results: Sequence[Result], first: str) -> list[Difference]:
    """Every other model against the model `first`, item by item."""
    return [
        _difference(task, kind, model, first, models[first], found)
        for (task, kind), models in _grouped(results).items()
        if first in models
        for model, found in models.items()
        if model != first
    ]


def cells(row: Row) -> dict[str, str]:
    """A row as the table shows it."""
    notes = {
        "per byte": None if row.normalised is None else percent(row.normalised),
        "bits/byte": None if row.bits_per_byte is None else f"{row.bits_per_byte:.3f}",
        "not asked": str(row.errors) if row.errors else None,
        "trimmed": str(row.dropped) if row.dropped else None,
    }
    return {
        "task": row.task,
        "kind": row.kind,
        "model": row.model,
        "n": str(row.n),
        "score": _shown(row, row.score),
        "95 %": f"{_shown(row, row.interval[0])} – {_shown(row, row.interval[1])}"
        if row.interval
        else "",
        "seconds": f"{row.seconds:.1f}",
        "also": ", ".join(f"{name} {value}" for name, value in notes.items() if value),
    }


COLUMNS = ("task", "kind", "model", "n", "score", "95 %", "seconds", "also")


def sentence(difference: Difference) -> str:
    """One difference as a line of text."""
    paired, unit = difference.paired, difference.unit
    factor, digits = (100, 1) if unit == "points" else (1, 3)
    number = f"{paired.difference * factor:+.{digits}f} {unit}".rstrip()
    interval = "one text"
    if paired.interval:
        low, high = (f"{end * factor:+.{digits}f}" for end in paired.interval)
        interval = f"95 %: {low} to {high}"
    coins = ""
    if paired.p is not None:
        coins = f", {paired.gained} gained, {paired.lost} lost, p = {paired.p:.2g}"
    head = f"{difference.task} {difference.kind}: {difference.model} against {difference.against}"
    return f"{head}: {number} ({interval}{coins}; n = {paired.n}): {difference.verdict}"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _shown(row: Row, value: float) -> str:
    return percent(value) if row.share else f"{value:.4g}"


def _grouped(results: Sequence[Result]) -> Groups:
    groups: Groups = {}
    for result in results:
        groups.setdefault((result.task, result.kind), {}).setdefault(result.model, []).append(
            result
        )
    return groups


def _row(task: str, kind: str, model: str, found: list[Result]) -> Row:
    seconds = sum(result.seconds for result in found)
    errors = sum(bool(result.error) for result in found)
    dropped = sum(bool(result.dropped) for result in found)
    if kind == "perplexity":
        return _perplexity(task, model, found, seconds, errors)
    n, right = len(found), math.fsum(result.score for result in found)
    if not _is_share(found):
        mean, interval = ratio([result.score for result in found], [1.0] * n)
        return Row(task, kind, model, n, mean, interval, seconds, share=False)
    by_byte = [result.normalised or 0.0 for result in found] if kind == "choice" else None
    return Row(
        task,
        kind,
        model,
        n,
        right / n,
        wilson(right, n),
        seconds,
        normalised=None if by_byte is None else sum(by_byte) / n,
        normalised_interval=None if by_byte is None else wilson(sum(by_byte), n),
        errors=errors,
        dropped=dropped,
    )


def _perplexity(task: str, model: str, found: list[Result], seconds: float, errors: int) -> Row:
    nats = [result.score for result in found]
    mean, interval = _positive(ratio(nats, [float(result.tokens) for result in found]))
    bits, bits_interval = _positive(
        ratio([one / math.log(2) for one in nats], [float(result.bytes) for result in found])
    )
    return Row(
        task,
        "perplexity",
        model,
        len(found),
        _exp(mean),
        (_exp(interval[0]), _exp(interval[1])) if interval else None,
        seconds,
        share=False,
        bits_per_byte=bits,
        bits_per_byte_interval=bits_interval,
        errors=errors,
    )


def _positive(estimate: tuple[float, Interval | None]) -> tuple[float, Interval | None]:
    """Cut an interval at 0: with few texts that of a mean of logarithms can extend below."""
    mean, interval = estimate
    return mean, interval and (max(interval[0], 0.0), interval[1])


def _difference(
    task: str, kind: str, model: str, against: str, ones: list[Result], others: list[Result]
) -> Difference:
    by_item = {result.item: result for result in ones}
    pairs = [(by_item[result.item], result) for result in others if result.item in by_item]
    scores = [one.score for one, _ in pairs], [other.score for _, other in pairs]
    if kind == "perplexity":
        bits = [[score / math.log(2) for score in column] for column in scores]
        sizes = [float(other.bytes) for _, other in pairs]
        return Difference(
            task, kind, model, against, "bits per byte", paired_ratio(bits[0], bits[1], sizes)
        )
    if _is_share([*ones, *others]):
        shares = [[score == 1 for score in column] for column in scores]
        return Difference(task, kind, model, against, "points", paired_shares(shares[0], shares[1]))
    return Difference(
        task, kind, model, against, "", paired_ratio(scores[0], scores[1], [1.0] * len(pairs))
    )


def _is_share(found: Sequence[Result]) -> bool:
    return all(result.score in (0.0, 1.0) for result in found)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


class ReportedDifference(Struct, frozen=True):
    """A Difference as `--json` prints it."""

    task: str
    """Name of the task."""
    kind: str
    """Kind of the task."""
    model: str
    """Label of the model."""
    against: str
    """Label of the first model."""
    unit: str
    """`points` (of 100), `bits per byte`, or the metric."""
    n: int
    """Items that both models have."""
    difference: float
    """This model minus the first."""
    interval: Interval | None
    """95 % interval of the difference."""
    p: float | None
    """P value, where one is computed."""
    gained: int
    """Items that only this model has right."""
    lost: int
    """Items that only the first has right."""
    verdict: str
    """`better`, `worse`, `higher`, `lower` or `no clear difference`."""


class Evaluation(Struct, frozen=True):
    """What `llmchat evaluate --json` prints."""

    models: list[dict[str, Any]]
    """Each model: its label, and what its answers are made of (model, base, adapters,
    adapter_scale, weights, engine, format).
    """
    interrupted: bool
    """Whether Ctrl-C ended the run."""
    error: str | None
    """What ended the run early."""
    rows: list[Row]
    """One row for each task and model."""
    differences: list[ReportedDifference]
    """Every other model against the first."""
    items: list[Result]
    """Every result."""


def for_json(
    models: list[dict[str, Any]], results: list[Result], interrupted: bool, error: str | None
) -> Evaluation:
    """models: each one's label and what its answers are made of; the first is compared with."""
    reported = [_reported(one) for one in differences(results, models[0]["label"])]
    return Evaluation(models, interrupted, error, rows(results), reported, results)


def _reported(one: Difference) -> ReportedDifference:
    paired = one.paired
    return ReportedDifference(
        task=one.task,
        kind=one.kind,
        model=one.model,
        against=one.against,
        unit=one.unit or one.kind,
        n=paired.n,
        difference=paired.difference,
        interval=paired.interval,
        p=paired.p,
        gained=paired.gained,
        lost=paired.lost,
        verdict=one.verdict,
    )
