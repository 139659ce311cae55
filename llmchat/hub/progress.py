"""Progress for people: one line that is redrawn on a terminal, one line a step elsewhere."""

from typing import Any, TextIO


class Silent:
    """Says nothing."""

    def start(self, what: str, total: int | None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def done(self) -> None:
        pass


class Bar:
    """A progress bar on `stream`; where that is no terminal, the name of each step alone."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._bar: Any = None

    def start(self, what: str, total: int | None) -> None:
        if not self._stream.isatty():
            print(what, file=self._stream, flush=True)
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = [TextColumn("{task.description}"), BarColumn(bar_width=24)]
        columns += [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()] if total else []  # type: ignore[list-item]
        self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
        self._bar.start()
        self._bar.add_task(what, total=total)

    def advance(self, count: int) -> None:
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], count)

    def done(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
