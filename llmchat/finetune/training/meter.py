"""How a run is going: a line that is redrawn on a terminal, one line for each tenth of the way elsewhere."""

import time
from typing import Any, TextIO

from transformers import TrainerCallback


class Meter(TrainerCallback):
    """Counts tokens and seconds of the training steps alone, and tells the loss, the speed and the time that is left."""

    def __init__(self, stream: TextIO, quiet: bool = False):
        self._stream = stream
        self._quiet = quiet
        self._loss = self._eval_loss = float("nan")
        self._tenth = -1
        self._started = time.perf_counter()
        self._first_step = 0
        self.tokens = 0
        self.seconds = 0.0

    def worked(self, tokens: int, seconds: float) -> None:
        self.tokens += tokens
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._started, self._first_step = time.perf_counter(), state.global_step
        if state.global_step and state.is_world_process_zero:
            self._say(f"going on from step {state.global_step} of {state.max_steps}", lasting=True)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any
    ) -> None:
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        self._eval_loss = logs.get("eval_loss", self._eval_loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if not state.is_world_process_zero:
            return
        tenth = 10 * state.global_step // max(1, state.max_steps)
        self._say(self._line(state), lasting=tenth > self._tenth)
        self._tenth = tenth

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.is_world_process_zero and not self._quiet and self._stream.isatty():
            print(file=self._stream)

    def _line(self, state: Any) -> str:
        done = state.global_step - self._first_step
        left = (
            (time.perf_counter() - self._started)
            / max(1, done)
            * (state.max_steps - state.global_step)
        )
        evaluated = (
            f"  eval loss {self._eval_loss:.3f}" if self._eval_loss == self._eval_loss else ""
        )
        speed = f"  {self.tokens_per_second:,.0f} tokens/s  {_minutes(left)} left"
        loss = f"  loss {self._loss:.3f}" if self._loss == self._loss else ""
        return f"step {state.global_step}/{state.max_steps}{loss}{evaluated}{speed}"

    def _say(self, line: str, *, lasting: bool) -> None:
        if self._quiet:
            return
        if self._stream.isatty():
            print(f"\r\x1b[K{line}", end="", file=self._stream, flush=True)
        elif lasting:
            print(line, file=self._stream, flush=True)


def _minutes(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
