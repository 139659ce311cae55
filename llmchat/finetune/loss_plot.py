"""The loss curves of one run, or of several over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmchat.output.plots.figures import Figure, LineChart, curve, tidy

# Step, training loss and evaluation loss, as in `Trained.curve`. A run's file has null for a loss
# that was not finite.
Losses = Sequence[tuple[int, float | None, float | None]]

_UNIT = "loss (cross-entropy per learned token)"


def curve_of(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, float | None, float | None]]:
    """(step, training loss, evaluation loss) from a log of transformers' Trainer."""
    return [
        (int(entry["step"]), entry.get("loss"), entry.get("eval_loss"))
        for entry in history
        if "loss" in entry or "eval_loss" in entry
    ]


def loss_figure(runs: Mapping[str, Losses]) -> Figure:
    """runs: name → losses. Several runs get two curves each, with the run's name."""
    names = {name: tidy(name) for name in runs}
    curves = [
        curve(label if len(runs) == 1 else f"{names[name]}, {label}", points)
        for name, losses in runs.items()
        for label, points in (("training", _training(losses)), ("held out", _held_out(losses)))
        if points
    ]
    chart = LineChart("", "step", _UNIT, tuple(curves))
    return Figure(", ".join(names.values()), (chart,))


def _training(losses: Losses) -> list[tuple[float, float | None]]:
    """An entry without any loss is one whose loss was not finite."""
    return [(step, loss) for step, loss, held_out in losses if loss is not None or held_out is None]


def _held_out(losses: Losses) -> list[tuple[float, float | None]]:
    return [(step, loss) for step, _, loss in losses if loss is not None]
