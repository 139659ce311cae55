"""Run a job of the web in a process of its own, which ends with the call, whatever happens."""

import subprocess
import time
from threading import Event
from typing import TYPE_CHECKING

import msgspec

from llmchat.process.programs import SAFE_PATH, python
from llmchat.tools import ToolError

if TYPE_CHECKING:
    from llmchat.tools.web.jobs import Done, Job
    from llmchat.tools.web.settings import WebSettings

# Variables that the process may see: certificates, and what Python itself needs.
_PASSED = (
    "PATH",
    "PYTHONPATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
)
_STEP_S = 0.05


def run(job: "Job", settings: "WebSettings", stop: Event) -> "Done":
    """What came of a job. Raises ToolError if it failed, took too long, or `stop` was set."""
    from llmchat.tools.web.jobs import Done

    env = {name: settings.env[name] for name in _PASSED if name in settings.env} | SAFE_PATH
    process = subprocess.Popen(
        python("-m", "llmchat.tools.web.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=env,
    )
    try:
        answer = _wait(
            process, msgspec.json.encode(job), stop, job.access.seconds + settings.reading_seconds
        )
    finally:
        process.kill()
        process.communicate()
    try:
        done = msgspec.json.decode(answer, type=Done)
    except msgspec.DecodeError as error:
        raise ToolError("the page or the search took too much time or memory") from error
    if done.error:
        raise ToolError(done.error, done.hint)
    return done


def _wait(process: "subprocess.Popen[bytes]", job: bytes, stop: Event, seconds: float) -> bytes:
    end, given = time.monotonic() + seconds, job or None
    while True:
        try:
            return process.communicate(given, timeout=_STEP_S)[0]
        except subprocess.TimeoutExpired:
            # The next call continues with the input of the first one.
            given = None
        if stop.is_set():
            raise ToolError("the request to the web was stopped")
        if time.monotonic() > end:
            raise ToolError(f"loading and reading took more than {seconds:.0f} s")
