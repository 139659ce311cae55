"""The report of a run: one HTML page and a picture of its losses, without external resources."""

import base64
from pathlib import Path

import msgspec

from llmchat.finetune.types import Outcome
from llmchat.output.html_page import fill

_PAGE = Path(__file__).with_name("report.html")


def write_report(outcome: Outcome, folder: Path) -> None:
    """Write report.html, and loss.png if matplotlib is installed."""
    picture = _curves(outcome, folder / "loss.png")
    (folder / "report.html").write_text(_page(outcome, picture), "utf-8")


def _curves(outcome: Outcome, path: Path) -> Path | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, index in (("training", 1), ("held out", 2)):
        points = [
            (entry[0], entry[index]) for entry in outcome.trained.curve if entry[index] is not None
        ]
        if points:
            axes.plot(
                [step for step, _ in points],
                [loss for _, loss in points],
                label=label,
                marker="o" if index == 2 else "",
                markersize=4,
            )
    axes.set_xlabel("step")
    axes.set_ylabel("loss (cross-entropy per learned token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _page(outcome: Outcome, picture: Path | None) -> str:
    image = base64.b64encode(picture.read_bytes()).decode() if picture else ""
    return fill(
        _PAGE,
        name=outcome.name,
        facts=_facts(outcome),
        image=image,
        samples=outcome.samples,
        recipe=msgspec.to_builtins(outcome.recipe),
    )


def _facts(outcome: Outcome) -> dict[str, str]:
    trained, counts = outcome.trained, outcome.counts
    used = f"{counts.trained_on:,} trained on, {counts.held_out:,} held out"
    unused = f"{counts.skipped:,} skipped, {counts.cut:,} cut"
    minutes = f"{trained.seconds / 60:.1f} minutes in all"
    return {
        "base": f"{outcome.base}@{outcome.base_revision}".rstrip("@"),
        "format": outcome.format,
        "data": ", ".join(outcome.data),
        "records": f"{counts.records:,}: {used}, {unused}",
        "tokens": f"{counts.tokens:,} an epoch",
        "steps": f"{trained.steps:,}{', stopped early' if trained.stopped_early else ''}",
        "loss held out": _losses(outcome),
        "trained parameters": f"{trained.parameters:,}",
        "speed": f"{trained.tokens_per_second:,.0f} tokens/s, {minutes}",
        "micro-batch": str(trained.micro_batch),
    }


def _losses(outcome: Outcome) -> str:
    losses = [loss for _, _, loss in outcome.trained.curve if loss is not None]
    return f"{losses[0]:.3f} at first, {min(losses):.3f} at best" if losses else "not measured"
