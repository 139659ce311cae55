"""Show the progress of a prefill, and acknowledge Ctrl-C at once.

A pass through the model is one call into C, which Ctrl-C cannot interrupt; without an
acknowledgement people press it again and again.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from llmchat.engines import Prefill
from llmchat.settings import World
from llmchat.ui import themes

_CLEAR = "\r\x1b[K"


class PrefillProgress:
    """`reading 1,200 / 2,369 tokens` on one line of a terminal; prints nothing elsewhere."""

    def __init__(self, stream: TextIO, world: World, *, shown: bool = True):
        self._stream = stream
        self._shown = shown and stream.isatty() and world.env.get("TERM") != "dumb"
        self._style = themes.current(world, stream).note
        self._on_screen = False
        self._reading = False
        self._lock = threading.Lock()

    def feed(self, event: Prefill) -> None:
        self._reading = True
        self._print(f"reading {event.read:,} / {event.total:,} tokens")

    def stopping(self) -> None:
        """Acknowledge Ctrl-C during a prefill; may be called from another thread."""
        if self._reading:
            self._print("stopping …")

    def clear(self) -> None:
        """Clear the line for the answer."""
        self._reading = False
        with self._lock:
            if self._on_screen:
                self._on_screen = False
                self._write(_CLEAR)

    def _print(self, text: str) -> None:
        with self._lock:
            if self._shown:
                self._on_screen = True
                self._write(f"{_CLEAR}{self._style.start}{text}{self._style.end}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def on_interrupt(call: Callable[[], None]) -> Iterator[None]:
    """Call, from another thread, the moment Ctrl-C is pressed, even while C code runs.

    KeyboardInterrupt is still raised, when the interpreter runs again. Works in the main thread
    only; does nothing in others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Windows takes only a socket for this.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reader, call), name="interrupts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()


def _listen(reader: socket.socket, call: Callable[[], None]) -> None:
    """Read signal numbers until the other end is closed."""
    while numbers := reader.recv(16):
        if signal.SIGINT in numbers:
            call()
