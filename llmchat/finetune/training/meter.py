"""Measure and show how a training run is going, as a callback of transformers' Trainer.

A terminal shows one line that is redrawn; elsewhere each tenth of the run prints a line.
"""

import time
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from llmchat.finetune.loss_plot import curve_of, loss_figure
from llmchat.output.formatting import duration
from llmchat.output.plots import showing
from llmchat.output.progress import StatusLine
from llmchat.settings import World

# Lines of a terminal from which a plot leaves room for other text.
_FEWEST_LINES = 20


class Meter(TrainerCallback):
    """Counts tokens and seconds of the training steps only; shows loss, speed and time left."""

    def __init__(self, world: World, *, quiet: bool = False, plot: bool = False):
        self._world, self._plots = world, plot
        self._status = StatusLine(world, quiet=quiet, keep=True)
        self._plot = ""
        self._loss = self._eval_loss = float("nan")
        self._tenth = -1
        self._started = time.perf_counter()
        self._first_step = 0
        self.tokens = 0
        self.seconds = 0.0

    def worked(self, tokens: int, seconds: float) -> None:
        """Count one training step."""
        self.tokens += tokens
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def close(self) -> None:
        """Restore the terminal; called after the run and after an error."""
        self._status.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._started, self._first_step = time.perf_counter(), state.global_step
        if state.global_step and state.is_world_process_zero:
            self._status.print(f"resuming from step {state.global_step} of {state.max_steps}")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any
    ) -> None:
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        self._eval_loss = logs.get("eval_loss", self._eval_loss)
        if self._plots and self._status.live:
            self._plot = self._curves(state.log_history)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if not state.is_world_process_zero:
            return
        line = self._line(state)
        tenth = 10 * state.global_step // max(1, state.max_steps)
        self._status.show(line, state.global_step, state.max_steps, self._plot)
        if tenth > self._tenth and not self._status.live:
            self._status.print(line)
        self._tenth = tenth

    def _curves(self, history: Sequence[dict[str, Any]]) -> str:
        """The losses so far in characters; empty where the terminal has no room for them."""
        figure = loss_figure({"": curve_of(history)})
        _, lines = showing.size(self._world, self._world.stderr)
        if lines < _FEWEST_LINES or not figure.compares:
            return ""
        return showing.text(figure, self._world, self._world.stderr)

    def _line(self, state: Any) -> str:
        taken = max(1, state.global_step - self._first_step)
        per_step = (time.perf_counter() - self._started) / taken
        left = duration(per_step * (state.max_steps - state.global_step))
        parts = [f"step {state.global_step}/{state.max_steps}"]
        if self._loss == self._loss:
            parts.append(f"loss {self._loss:.3f}")
        if self._eval_loss == self._eval_loss:
            parts.append(f"eval loss {self._eval_loss:.3f}")
        return "  ".join([*parts, f"{self.tokens_per_second:,.0f} tokens/s", f"{left} left"])
