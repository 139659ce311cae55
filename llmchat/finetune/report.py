"""What a run did, as one HTML page and a picture of its losses. Nothing is fetched from elsewhere."""

import base64
import html
from pathlib import Path

import msgspec

from llmchat.finetune.types import Outcome

_STYLE = """
:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
border-bottom: 1px solid #8884; } pre { white-space: pre-wrap; margin: 0; font: inherit; } img { max-width: 100%; background: #fff; }
"""


def write_report(outcome: Outcome, folder: Path) -> None:
    """report.html, and loss.png where matplotlib is installed."""
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
    axes.set_ylabel("loss (cross-entropy a learnt token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _page(outcome: Outcome, picture: Path | None) -> str:
    trained, counts = outcome.trained, outcome.counts
    facts = {
        "base": f"{outcome.base}@{outcome.base_revision}".rstrip("@"),
        "format": outcome.format,
        "data": ", ".join(outcome.data),
        "records": f"{counts.records:,}: {counts.trained_on:,} trained on, {counts.held_out:,} held out, {counts.skipped:,} skipped, {counts.cut:,} cut",
        "tokens": f"{counts.tokens:,} an epoch",
        "steps": f"{trained.steps:,}{', stopped early' if trained.stopped_early else ''}",
        "loss held out": _losses(outcome),
        "trained parameters": f"{trained.parameters:,}",
        "speed": f"{trained.tokens_per_second:,.0f} tokens/s, {trained.seconds / 60:.1f} minutes in all",
        "micro-batch": str(trained.micro_batch),
    }
    recipe = {name: str(value) for name, value in msgspec.to_builtins(outcome.recipe).items()}
    image = (
        f'<img alt="training and evaluation loss" src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">'
        if picture
        else ""
    )
    missing = "" if picture else "<p>No curves: matplotlib is not installed.</p>"
    samples = "".join(
        f"<tr><td><pre>{_safe(one.question)}</pre><td><pre>{_safe(one.wanted)}</pre><td><pre>{_safe(one.before)}</pre><td><pre>{_safe(one.after)}</pre>"
        for one in outcome.samples
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{_safe(outcome.name)}</title>"
        f"<style>{_STYLE}</style><h1>{_safe(outcome.name)}</h1>{_table(facts)}<h2>Loss</h2>{image}{missing}"
        + (
            f"<h2>Before and after</h2><table><tr><th>question<th>data<th>before<th>after{samples}</table>"
            if samples
            else ""
        )
        + f"<h2>Recipe</h2>{_table(recipe)}</html>"
    )


def _losses(outcome: Outcome) -> str:
    losses = [loss for _, _, loss in outcome.trained.curve if loss is not None]
    return f"{losses[0]:.3f} at first, {min(losses):.3f} at best" if losses else "not measured"


def _table(rows: dict[str, str]) -> str:
    return (
        "<table>"
        + "".join(f"<tr><th>{_safe(name)}<td>{_safe(value)}" for name, value in rows.items())
        + "</table>"
    )


def _safe(text: str) -> str:
    return html.escape(text)
