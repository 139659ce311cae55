"""The report of a run: one HTML page and a picture of its losses, without external resources."""

from pathlib import Path

import msgspec

from llmchat.finetune.loss_plot import loss_figure
from llmchat.finetune.types import Outcome
from llmchat.output.html_page import fill
from llmchat.output.plots import showing
from llmchat.output.plots.figures import Figure
from llmchat.output.plots.svg import PAGE_STYLE, figure_html

_PAGE = Path(__file__).with_name("report.html")


def write_report(outcome: Outcome, folder: Path) -> None:
    """Write report.html, and loss.png; loss.svg where Pillow is not installed."""
    figure = loss_figure({outcome.name: outcome.trained.curve})
    # Model cards of the Hub show PNG.
    ending = ".png" if showing.has_pillow() else ".svg"
    (folder / f"loss{ending}").write_bytes(showing.file_bytes(figure, ending))
    (folder / "report.html").write_text(_page(outcome, figure), "utf-8")


def _page(outcome: Outcome, figure: Figure) -> str:
    from markupsafe import Markup

    return fill(
        _PAGE,
        name=outcome.name,
        facts=_facts(outcome),
        style=Markup(PAGE_STYLE),
        plot=Markup(figure_html(figure)),
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
