"""Download files of a repo into the cache: a few at a time, resumed, and checked before use.

Our own code rather than huggingface_hub's: that library discards a partial file when its process
ends, and a download of hours must continue whatever stopped it. Every piece is written as it
arrives, so that a killed process loses nothing.
"""

import errno
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, OutOfResources
from llmchat.hub import cache, http, remote
from llmchat.hub.cache import RemoteFile
from llmchat.hub.response_guard import AGAIN, explained
from llmchat.hub.retry import TransferLimits, Watchdog
from llmchat.output.progress import Progress
from llmchat.presets.types import Source
from llmchat.settings import World

PARALLEL = 4
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(Exception):
    """Another file failed, or the user interrupted."""


def fetch_all(
    source: Source, world: World, progress: Progress, commit: str, files: Sequence[RemoteFile]
) -> int:
    """Download files into the cache; returns the bytes fetched. The first fault stops all."""
    if not files:
        return 0
    stop = threading.Event()
    largest_first = sorted(files, key=lambda file: -file.size)
    downloads = [_Download(source, world, progress, commit, file, stop) for file in largest_first]
    with ThreadPoolExecutor(min(PARALLEL, len(files)), thread_name_prefix="download") as pool:
        try:
            # Within the block, so that an interruption here stops the first ones as well.
            running = [pool.submit(download.run) for download in downloads]
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            for download in downloads:
                download.hang_up()
        faults = [
            fault
            for future in done
            if (fault := future.exception()) and not isinstance(fault, Stopped)
        ]
        if faults:
            raise faults[0]
    return sum(future.result() for future in running)


class _Download:
    """The download of one file. fetched: bytes that came over the network."""

    def __init__(
        self,
        source: Source,
        world: World,
        progress: Progress,
        commit: str,
        file: RemoteFile,
        stop: threading.Event,
    ):
        self._source, self._world, self._commit, self._file = source, world, commit, file
        self._progress, self._stop = progress, stop
        self._repo = cache.repo_folder(world, source.repo)
        self._partial = cache.partial(self._repo, file)
        self._limits = TransferLimits.of(world)
        self._watch: Watchdog | None = None
        # The longest that the file has been: bytes that a server sends again are not progress.
        self._furthest = 0
        self.fetched = 0

    def run(self) -> int:
        """Download the file into the cache; returns the bytes fetched."""
        if self._stop.is_set():
            raise Stopped
        file = self._file
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        begun = cache.partial_size(self._repo, file)
        self._progress.start(file.name, file.size - begun)
        try:
            self._complete(begun)
            if begun and not cache.is_intact(self._partial, file):
                # The earlier attempt left the beginning of another file.
                self._complete(0)
        except OSError as error:
            if error.errno in _FULL:
                raise OutOfResources(
                    f"the disk of {self._repo.parent} is full", f"free some space; {AGAIN}"
                ) from error
            raise
        finally:
            self._progress.done()
        if not cache.is_intact(self._partial, file):
            self._partial.unlink()
            raise IntegrityError(
                f"{file.name} of {self._source} arrived damaged and was discarded",
                "pull again; if that fails as well, the server's copy is damaged",
            )
        self._partial.replace(cache.blob(self._repo, file))
        return self.fetched

    def hang_up(self) -> None:
        """Close the connection from another thread, so that nothing waits for a silent server."""
        if self._watch:
            self._watch.hang_up()

    def _complete(self, begun: int) -> None:
        """Fetch from byte `begun` to the end, over as many connections as needed."""
        self._furthest = begun
        with explained(self._source, self._world), self._partial.open("ab", buffering=0) as target:
            target.truncate(begun)
            remote.retrying(
                lambda: self._continue(target),
                moved=lambda: self._furthest,
                step=self._limits.step,
                stop=self._stop,
                tell=self._progress.note,
            )

    def _continue(self, target: Any) -> None:
        """Fetch the rest of the file over one connection."""
        file, here = self._file, target.seek(0, 2)
        if here == file.size:
            return
        headers = {"Range": f"bytes={here}-"} if here else {}
        self._watch = Watchdog(self._limits)
        if self._stop.is_set():
            # hang_up may have come before there was a connection to close.
            raise Stopped
        with remote.stream(
            self._source, self._world, self._commit, file.name, headers, self._watch
        ) as answer:
            self._refuse_another_file(answer)
            # A server without ranges sends the file from its beginning: known bytes are skipped.
            for piece in self._unseen(answer, here - remote.first_byte(answer, here, file)):
                if here + len(piece) > file.size:
                    target.truncate(0)
                    raise IntegrityError(
                        f"{file.name} of {self._source} is longer than listed by the server",
                        "its bytes were discarded",
                    )
                _write(target, piece)
                here += len(piece)
                self._furthest = max(self._furthest, here)
                self._progress.advance(len(piece))
        if here < file.size:
            raise http.Cut(f"{here} of {file.size} bytes")

    def _unseen(self, answer: http.Answer, skipped: int) -> Iterator[bytes]:
        """The pieces of an answer after its first `skipped` bytes."""
        first = answer.status == 200
        for piece in answer.pieces():
            if first:
                answer.refuse_page(self._file.name, piece[:200])
                first = False
            self.fetched += len(piece)
            rest, skipped = piece[skipped:], max(0, skipped - len(piece))
            if rest:
                yield rest
            if self._stop.is_set():
                raise Stopped

    def _refuse_another_file(self, answer: http.Answer) -> None:
        """Raise for a web page, and for headers that differ from the Hub's list of files."""
        file, linked = self._file, answer.linked
        answer.refuse_page(file.name)
        etag = linked.get("x-linked-etag", "").removeprefix("W/").strip('"')
        size = linked.get("x-linked-size", "")
        if (file.large and etag and etag != file.etag) or (
            size.isdigit() and int(size[:18]) != file.size
        ):
            raise IntegrityError(
                f"{file.name} of {self._source} differs from the server's list of files",
                AGAIN,
            )


def _write(target: Any, piece: bytes) -> None:
    """Write all of a piece: an unbuffered file may take only a part on a nearly full disk."""
    view = memoryview(piece)
    while view:
        view = view[target.write(view) :]


def room_needed(repo: Path, files: Sequence[RemoteFile]) -> int:
    """Bytes that the missing files will take on the disk."""
    return sum(
        file.size - cache.partial_size(repo, file) for file in files if not cache.stored(repo, file)
    )
