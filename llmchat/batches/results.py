"""The file of a batch: each row is written as soon as it is known, and put in order at the end.

A row names the line that it answers, so a run can be continued wherever it was stopped.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
from msgspec import Struct

from llmchat.batches.rows import OPENINGS, BatchMark, Row
from llmchat.errors import UsageError
from llmchat.output.row_file import complete_rows, remove_broken_row
from llmchat.settings import World


class _Mark(Struct):
    """What a row of either form says about its line."""

    line: int = 0
    key: str = ""
    run: str = ""
    error: Any = None
    llmchat: BatchMark | None = None

    @property
    def of(self) -> BatchMark:
        return self.llmchat or BatchMark(self.line, self.key, self.run)


class Sink(Protocol):
    """Where rows go. kept: the lines that have a row already, by their keys, with whether it is an
    answer."""

    kept: dict[str, bool]

    def expect(self, number: int) -> None:
        """Announce a line, whose row follows later."""
        ...

    def write(self, number: int, row: Row) -> None: ...

    def finish(self, numbers: Mapping[str, int]) -> None:
        """End the file. numbers: the number of each line, by its key."""
        ...

    def close(self) -> None: ...


class Results:
    """A file. as_done: leave the rows in the order in which they were written.

    Raises UsageError for a file of something else, of other settings, or in use.
    """

    def __init__(self, path: Path, run: str, *, as_done: bool = False):
        self.kept: dict[str, bool] = {}
        self._path, self._run, self._as_done = path, run, as_done
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file", "`-` is stdout")
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        try:
            _lock(self._file, path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def write(self, number: int, row: Row) -> None:
        self._file.write(msgspec.json.encode(row) + b"\n")
        self._file.flush()

    def expect(self, number: int) -> None:
        pass

    def finish(self, numbers: Mapping[str, int]) -> None:
        """Sort the rows; those of lines that are no longer in the input come last."""
        os.fsync(self._file.fileno())
        if self._as_done:
            return
        last = len(numbers) + 1
        places = [
            (numbers.get(mark.of.key, last), start, length) for mark, start, length in self._marks()
        ]
        if places != sorted(places):
            self._rewrite(sorted(places))

    def close(self) -> None:
        self._file.close()

    def _rewrite(self, places: list[tuple[int, int, int]]) -> None:
        """Put the rows in order, in a new file that takes the place of the old one."""
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with new.open("wb") as target:
                for _, start, length in places:
                    self._file.seek(start)
                    target.write(self._file.read(length))
                target.flush()
                os.fsync(target.fileno())
            new.chmod(self._path.stat().st_mode & 0o7777)
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)

    def _read(self) -> None:
        """Find the lines that have a row, and remove an incomplete row at the end."""
        for found, _, _ in self._marks():
            mark = found.of
            if mark.run != self._run:
                raise UsageError(
                    f"{self._path} has answers of another model or of other settings",
                    "the same flags as before continue it; another file name starts anew",
                )
            self.kept[mark.key] = found.error is None
        remove_broken_row(self._file, str(self._path), OPENINGS)

    def _marks(self) -> Iterator[tuple[_Mark, int, int]]:
        """What each complete row says, where it begins, and its length in bytes."""
        for number, start, text in complete_rows(self._file):
            yield self._mark(number, text), start, len(text)

    def _mark(self, number: int, text: bytes) -> _Mark:
        try:
            mark = msgspec.json.decode(text, type=_Mark)
        except msgspec.MsgspecError:
            mark = _Mark()
        if not mark.of.key:
            raise UsageError(
                f"{self._path}, line {number}, is not a row of a batch",
                "choose another file name",
            )
        return mark


class StdoutResults:
    """Rows to stdout, in the order of the lines unless as_done: a row waits for those before it."""

    def __init__(self, world: World, *, as_done: bool = False):
        self.kept: dict[str, bool] = {}
        self._stream, self._as_done = world.stdout, as_done
        self._waiting: dict[int, Row] = {}
        self._expected: list[int] = []

    def expect(self, number: int) -> None:
        self._expected.append(number)

    def write(self, number: int, row: Row) -> None:
        if self._as_done:
            self._print(row)
            return
        self._waiting[number] = row
        while self._expected and self._expected[0] in self._waiting:
            self._print(self._waiting.pop(self._expected.pop(0)))

    def finish(self, numbers: Mapping[str, int]) -> None:
        pass

    def close(self) -> None:
        pass

    def _print(self, row: Row) -> None:
        print(msgspec.json.encode(row).decode(), file=self._stream, flush=True)


def _lock(file: BinaryIO, path: Path) -> None:
    """Raises UsageError if another run writes the file. Where there are no locks, none is taken."""
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{path} is being written by another run", "wait for it, or name another file"
            ) from None
        except OSError:
            return
