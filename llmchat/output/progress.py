"""Show how far a long task is: one live display on a terminal, plain lines everywhere else.

rich draws the live displays and is imported when the first one appears. Callers decide what to
show; text from servers and models is made harmless here.
"""

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from llmchat.output.formatting import byte_count, counted, duration
from llmchat.output.terminal_text import fit_for, harmless, has_styles
from llmchat.settings import World

if TYPE_CHECKING:
    from rich.progress import TaskID

    from llmchat.output.plots.live import WithPlot as Display

_BAR_WIDTH = 24


class Progress(Protocol):
    """Receives the steps of a download or conversion; steps may overlap, from several threads."""

    def expect(self, what: str, total: int) -> None:
        """Announce a group of steps of `total` bytes: one display for all of it, until `close`."""
        ...

    def start(self, what: str, total: int | None) -> None:
        """A step begins; total is in bytes, None where the size is unknown."""
        ...

    def advance(self, count: int) -> None:
        """Count bytes, of whichever step."""
        ...

    def done(self) -> None:
        """The step that began last has ended."""
        ...

    def note(self, line: str) -> None:
        """Report something worth knowing while the steps go on."""
        ...

    def close(self) -> None:
        """Remove the display."""
        ...


class NoProgress:
    """Shows nothing."""

    def expect(self, what: str, total: int) -> None:
        pass

    def start(self, what: str, total: int | None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def done(self) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class ByteProgress:
    """Shows a pull on stderr: one bar for the bytes of all files, with rate and time left.

    Without a terminal it prints the name of each step on a line.
    """

    def __init__(self, world: World):
        self._world, self._stream = world, world.stderr
        self._live = has_styles(world, world.stderr)
        self._lock = threading.Lock()
        self._display: Display | None = None
        self._bytes: TaskID | None = None
        self._expected = False
        self._last_note = ""
        # The tasks of the steps that are running: None for those that count bytes.
        self._running: list[TaskID | None] = []

    def expect(self, what: str, total: int) -> None:
        with self._lock:
            self._expected = True
            if self._live:
                self._count_bytes(what, total)

    def start(self, what: str, total: int | None) -> None:
        with self._lock:
            if not self._live:
                self._print(what if total is None else f"{what} ({byte_count(total)})")
            elif total is None:
                self._running.append(self._shown().add_task(harmless(what), total=None))
            else:
                self._running.append(None)
                if not self._expected:
                    self._count_bytes(what, total)

    def advance(self, count: int) -> None:
        with self._lock:
            if self._display and self._bytes is not None:
                self._display.advance(self._bytes, count)

    def done(self) -> None:
        with self._lock:
            task = self._running.pop() if self._running else None
            if task is not None and self._display:
                self._display.remove_task(task)
        if not self._expected and not self._running:
            self.close()

    def note(self, line: str) -> None:
        with self._lock:
            # Parallel downloads report the same fault of the same server.
            if line == self._last_note:
                return
            self._last_note = line
            if self._display:
                self._display.console.print(harmless(line), markup=False, highlight=False)
            else:
                self._print(line)

    def close(self) -> None:
        with self._lock:
            if self._display:
                self._display.stop()
            self._display = self._bytes = None
            self._expected = False
            self._running.clear()

    def _print(self, line: str) -> None:
        print(fit_for(self._stream, line), file=self._stream, flush=True)

    def _count_bytes(self, what: str, total: int) -> None:
        display = self._shown()
        if self._bytes is None:
            self._bytes = display.add_task(harmless(what), total=total)
        else:
            display.update(self._bytes, total=(display.tasks[0].total or 0) + total)

    def _shown(self) -> "Display":
        if self._display is None:
            self._display = _display(self._world, _byte_columns(), transient=True)
            self._display.start()
        return self._display


class StatusLine:
    """One line on stderr that is redrawn on a terminal, with a bar for the steps done.

    quiet: show nothing; keep: leave the last state on the screen when it is closed.
    """

    def __init__(self, world: World, *, quiet: bool = False, keep: bool = False):
        self._world, self._stream, self._keep, self._quiet = world, world.stderr, keep, quiet
        self.live = has_styles(world, world.stderr) and not quiet
        self._display: Display | None = None

    def show(self, text: str, done: int, total: int, above: str = "") -> None:
        """Redraw the line; does nothing without a terminal. above: a plot over the line."""
        if not self.live:
            return
        if self._display is None:
            self._display = _display(self._world, _step_columns(), transient=not self._keep)
            self._display.add_task("", total=total)
            self._display.start()
        task = self._display.tasks[0].id
        self._display.above = above
        line = " ".join(harmless(text).split("\n"))
        self._display.update(task, description=line, completed=done, total=total, refresh=True)

    def print(self, line: str) -> None:
        """Print a lasting line: above the live one on a terminal."""
        if self._quiet:
            return
        if self._display:
            self._display.console.print(harmless(line), markup=False, highlight=False)
        else:
            print(fit_for(self._stream, line), file=self._stream, flush=True)

    def close(self) -> None:
        """End the live line; it may be shown again later."""
        if self._display:
            self._display.above = ""
            self._display.stop()
        self._display = None


class StepProgress:
    """Shows on stderr how many of `total` steps over all models are left, and for how long.

    The time left is estimated from the steps taken in this run, not from results kept from before.
    Without a terminal it prints one line a model.
    """

    def __init__(self, world: World, total: int, *, quiet: bool = False):
        self._line = StatusLine(world, quiet=quiet)
        self._left = total
        self._taken, self._seconds = 0, 0.0

    def begin(self, label: str, steps: int, kept: int = 0) -> None:
        """A model begins; the results of `kept` of its steps exist already."""
        self.clear()
        self._label = label
        self._left -= kept
        if not self._line.live:
            before = f", {kept} kept from before" if kept else ""
            self._line.print(f"{label}: {counted(steps - kept, 'item')}{before}")

    def expect(self, steps: int) -> None:
        """Add steps that were not known when the run began."""
        self._left += steps

    def started(self, what: str) -> None:
        self._since = time.perf_counter()
        left = ""
        if self._taken:
            left = f", about {duration(self._left * self._seconds / self._taken)}"
        text = f"{self._label}  {what}  {self._left} to go{left}"
        self._line.show(text, self._taken, self._taken + self._left)

    def done(self) -> None:
        self._left -= 1
        self._taken += 1
        self._seconds += time.perf_counter() - self._since

    def clear(self) -> None:
        """Remove the live line, until the next step starts."""
        self._line.close()


def _display(world: World, columns: list[Any], *, transient: bool) -> "Display":
    """A rich display on stderr; stdout is not redirected through it, for it carries the answer."""
    from rich.console import Console

    from llmchat.output.plots.live import WithPlot as Display

    console = Console(file=world.stderr, _environ=world.env)
    return Display(*columns, console=console, transient=transient, redirect_stdout=False)


def _byte_columns() -> list[Any]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counting = (
        TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    named = TextColumn("{task.description}", markup=False)
    return [named, BarColumn(bar_width=_BAR_WIDTH), *map(_empty_without_total, counting)]


def _step_columns() -> list[Any]:
    from rich.progress import BarColumn, TextColumn

    return [BarColumn(bar_width=_BAR_WIDTH), TextColumn("{task.description}", markup=False)]


def _empty_without_total(column: Any) -> Any:
    """The same column, empty for tasks of unknown size."""
    from rich.text import Text

    render = column.render
    column.render = lambda task: render(task) if task.total else Text("")
    return column
