"""Run a tool with a deadline, so that whatever it does the chat goes on.

Asks nobody for permission and stores nothing: that is the toolbox.
"""

import re
import time
import traceback
from threading import Event, Thread
from typing import Any

from msgspec import Struct

from llmchat.errors import LlmchatError, shortened
from llmchat.output.terminal_text import harmless
from llmchat.tools import Output, Source, Tool, ToolError
from llmchat.tools.validation import fault

# Seconds that a tool has to end after `stop` is set.
GRACE_S = 1.0
# Most characters of an output that are kept, for the user to open; the model is given fewer.
MOST_KEPT = 2_000_000
_POLL_S = 0.05
# CSI and OSC sequences, and the two-character escapes.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


class Finished(Struct, frozen=True):
    """What came of a call.

    text: clean, and whole up to MOST_KEPT characters. error: one line, empty if the tool did its
    work. details: the traceback of a bug in the tool.
    """

    text: str = ""
    sources: tuple[Source, ...] = ()
    untrusted: bool = False
    error: str = ""
    seconds: float = 0.0
    details: str = ""


def run(tool: Tool, arguments: Any, *, timeout_s: float, stop: Event | None = None) -> Finished:
    """Run a tool in a thread of its own and wait for it, at most `timeout_s` and GRACE_S.

    stop: ends the tool early when another thread sets it. KeyboardInterrupt stops the tool and is
    raised again. A tool that does not end is abandoned: its thread ends with the process.
    """
    if wrong := fault(tool, arguments):
        return Finished(error=wrong)
    work = _Work(tool, arguments, stop or Event())
    try:
        work.start()
        return work.result(timeout_s)
    except KeyboardInterrupt:
        work.ends_after_stop()
        raise


class _Work:
    def __init__(self, tool: Tool, arguments: dict[str, Any], stop: Event):
        self.tool, self.arguments, self.stop = tool, arguments, stop
        self.begun = time.monotonic()
        self.done = Event()
        self.finished = Finished()

    def start(self) -> None:
        Thread(target=self._run, name=f"tool {self.tool.name}", daemon=True).start()

    def result(self, timeout_s: float) -> Finished:
        while not (self.done.wait(_POLL_S) or self.stop.is_set() or self.seconds > timeout_s):
            pass
        if self.done.is_set() and not self.stop.is_set():
            return self.finished
        cause = "was interrupted" if self.stop.is_set() else f"was stopped after {timeout_s:g} s"
        if self.ends_after_stop():
            error = self.finished.error or f"{self.tool.name} {cause}"
            return _with(self.finished, error, self.seconds)
        hangs = f"{self.tool.name} {cause}, but still runs in the background"
        return Finished(error=hangs, seconds=self.seconds)

    def ends_after_stop(self) -> bool:
        """Whether the tool ends within GRACE_S of being told to."""
        self.stop.set()
        return self.done.wait(GRACE_S)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def _run(self) -> None:
        try:
            self.finished = _checked(self.tool.run(self.arguments, self.stop), self.seconds)
        except LlmchatError as error:
            self.finished = Finished(error=_line(error.message), seconds=self.seconds)
        except BaseException as error:
            # Also SystemExit and the panics of Rust libraries: a thread must not end unseen.
            self.finished = Finished(
                error=f"the tool failed: {_line(_named(error))}",
                seconds=self.seconds,
                details=traceback.format_exc(),
            )
        finally:
            self.done.set()


def _checked(output: Any, seconds: float) -> Finished:
    if not isinstance(output, Output) or not isinstance(output.text, str):
        raise ToolError(f"the tool returned {_kind(output)} instead of text")
    sources = tuple(Source(_line(one.title), _line(one.url)) for one in output.sources)
    text = clean(output.text)
    return Finished(text, sources, output.untrusted, seconds=seconds)


def _kind(output: Any) -> str:
    value = output.text if isinstance(output, Output) else output
    return f"`{type(value).__name__}`"


def _with(finished: Finished, error: str, seconds: float) -> Finished:
    return Finished(
        finished.text, finished.sources, finished.untrusted, error, seconds, finished.details
    )


def clean(text: str) -> str:
    """Text that cannot control a terminal and is valid UTF-8, at most MOST_KEPT characters."""
    over = len(text) - MOST_KEPT
    text = _ESCAPES.sub("", text[:MOST_KEPT]).replace("\r\n", "\n").replace("\r", "\n")
    text = _SURROGATES.sub("\ufffd", harmless(text))
    return f"{text}\n[{over:,} more characters were discarded]" if over > 0 else text


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _line(text: str) -> str:
    return shortened(" ".join(clean(text).split()))
