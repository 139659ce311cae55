"""Life on the screen while a prompt is read: how far it is, and that Ctrl-C was heard.

A pass through the model is one call into C, which Ctrl-C cannot interrupt: without a word at once,
people press it again and again.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from llmchat.engines import Prefill
from llmchat.settings import World

_CLEAR = "\r\x1b[K"


class ReadingLine:
    """`reading 1,200 / 2,369 tokens`, written over itself on a terminal; nothing anywhere else."""

    def __init__(self, stream: TextIO, world: World, *, shown: bool = True):
        self._stream = stream
        self._shown = shown and stream.isatty() and world.env.get("TERM") != "dumb"
        self._on = False
        self._reading = False
        self._lock = threading.Lock()

    def feed(self, event: Prefill) -> None:
        self._reading = True
        self._say(f"reading {event.read:,} / {event.total:,} tokens")

    def stopping(self) -> None:
        """Ctrl-C was pressed; may be called from another thread."""
        if self._reading:
            self._say("stopping …")

    def clear(self) -> None:
        """Leave the line to the answer."""
        self._reading = False
        with self._lock:
            if self._on:
                self._on = False
                self._write(_CLEAR)

    def _say(self, text: str) -> None:
        with self._lock:
            if self._shown:
                self._on = True
                self._write(f"{_CLEAR}\x1b[2m{text}\x1b[0m")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def told_of_interrupts(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell`, from a thread of its own, the moment Ctrl-C is pressed, even while C code runs.

    KeyboardInterrupt comes as ever, when the interpreter runs again. Only the main thread can ask
    for this; in another one nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, written = os.pipe()
    os.set_blocking(written, False)
    before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(heard, tell), name="interrupts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(written)
        thread.join()
        os.close(heard)


def _listen(heard: int, tell: Callable[[], None]) -> None:
    """Until the other end of the pipe is closed."""
    while numbers := os.read(heard, 16):
        if signal.SIGINT in numbers:
            tell()
