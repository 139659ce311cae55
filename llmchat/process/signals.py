"""SIGTERM and SIGHUP end the program in order: messages are stored, the terminal is restored.

Windows has no SIGHUP.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds after which a signal is sent again whose exception was lost.
_AGAIN_S = 0.05
_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def orderly_end() -> Iterator[None]:
    """Run every `finally` before a signal ends the process.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDS}
    unraisable = sys.unraisablehook
    sys.unraisablehook = _never_lost(unraisable)
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


class _Ended(SystemExit):
    """number: of the signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


def _leave(number: int, frame: FrameType | None) -> None:
    """Raise the end here, or between two steps of the event loop that runs: within the loop's own
    code, the exception would lose a step, and closing the loop would then wait for it for ever.
    """
    asyncio = sys.modules.get("asyncio")
    loop = asyncio and asyncio._get_running_loop()
    if loop:
        loop.call_soon_threadsafe(_raise_end, number)
    else:
        raise _Ended(number)


def _raise_end(number: int) -> None:
    raise _Ended(number)


def _never_lost(
    before: "Callable[[sys.UnraisableHookArgs], object]",
) -> "Callable[[sys.UnraisableHookArgs], object]":
    """A hook for exceptions that nobody can catch: Python drops one that a signal raises while the
    callback of a weak reference or a destructor runs. The signal is then sent again.
    """

    def hook(lost: "sys.UnraisableHookArgs") -> object:
        if not isinstance(lost.exc_value, _Ended):
            return before(lost)
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), lost.exc_value.number))
        again.daemon = True
        again.start()
        return None

    return hook
