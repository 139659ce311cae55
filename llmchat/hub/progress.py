"""Progress for people: one display for a whole pull on a terminal, one line a step elsewhere."""

import threading
from typing import Any, TextIO


class Silent:
    """Says nothing."""

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


class Bar:
    """A progress bar on `stream`: bytes of all files together, rate, time left. Where that is no terminal, the name of each step alone."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._lock = threading.Lock()
        self._display: Any = None
        self._bytes: Any = None  # the task that counts bytes
        self._expected = False
        self._noted = ""
        self._open: list[Any] = []  # tasks of steps without a size; None for those with one

    def expect(self, what: str, total: int) -> None:
        with self._lock:
            self._expected = True
            if self._stream.isatty():
                self._count_bytes(what, total)

    def start(self, what: str, total: int | None) -> None:
        with self._lock:
            if not self._stream.isatty():
                print(
                    what if total is None else f"{what} ({_size(total)})",
                    file=self._stream,
                    flush=True,
                )
            elif total is None:
                self._open.append(self._shown().add_task(what, total=None))
            else:
                self._open.append(None)
                if not self._expected:
                    self._count_bytes(what, total)

    def advance(self, count: int) -> None:
        with self._lock:
            if self._display and self._bytes is not None:
                self._display.advance(self._bytes, count)

    def done(self) -> None:
        with self._lock:
            task = self._open.pop() if self._open else None
            if task is not None:
                self._display.remove_task(task)
        if not self._expected and not self._open:
            self.close()

    def note(self, line: str) -> None:
        with self._lock:
            if line == self._noted:
                return  # what holds for one file holds for those beside it
            self._noted = line
            if self._display:
                self._display.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=self._stream, flush=True)

    def close(self) -> None:
        with self._lock:
            if self._display:
                self._display.stop()
            self._display = self._bytes = None
            self._expected = False
            self._open.clear()

    def _count_bytes(self, what: str, total: int) -> None:
        display = self._shown()
        if self._bytes is None:
            self._bytes = display.add_task(what, total=total)
        else:
            display.update(self._bytes, total=(display.tasks[0].total or 0) + total)

    def _shown(self) -> Any:
        if self._display is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)]
            percent = TextColumn("{task.percentage:>3.0f}%")
            columns += [
                _of_bytes(column)
                for column in (
                    percent,
                    DownloadColumn(),
                    TransferSpeedColumn(),
                    TimeRemainingColumn(),
                )
            ]
            self._display = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._display.start()
        return self._display


def _of_bytes(column: Any) -> Any:
    """The same column, empty for steps whose size nobody knows."""
    from rich.text import Text

    drawn = column.render
    column.render = lambda task: drawn(task) if task.total else Text("")
    return column


def _size(count: int) -> str:
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e5
        else f"{count / 1e3:.1f} kB"
    )
