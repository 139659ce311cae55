"""Read hostile formats in one process for many files; a new one after each that hangs or dies."""

import atexit
import subprocess
import threading

import msgspec

from llmchat.errors import UsageError
from llmchat.memory.readers.types import Document
from llmchat.memory.readers.worker import SECONDS, Done, Job, receive, send
from llmchat.process.programs import python

_LOCK = threading.Lock()
_PROCESS: "subprocess.Popen[bytes] | None" = None


def read_apart(data: bytes, name: str, kind: str) -> Document:
    """The document in a PDF, docx or HTML file. Raises UsageError in one line for every fault."""
    with _LOCK:
        answer = _asked(msgspec.json.encode(Job(name, kind, data)))
    if not answer:
        raise UsageError(f"{name} cannot be read: it takes too much time or memory")
    done = msgspec.json.decode(answer, type=Done)
    if done.document is None:
        raise UsageError(done.error, done.hint)
    return done.document


def _asked(job: bytes) -> bytes:
    """The answer of the process; empty if it died."""
    process = _started()
    assert process.stdin and process.stdout
    watch = threading.Timer(SECONDS + 5, process.kill)
    watch.start()
    try:
        send(process.stdin, job)
        answer = receive(process.stdout)
    except OSError:
        answer = b""
    except BaseException:
        # An interrupt: the answer to this job must not be taken for the next one's.
        _stop()
        raise
    finally:
        watch.cancel()
    if not answer:
        _stop()
    return answer


def _started() -> "subprocess.Popen[bytes]":
    global _PROCESS
    if _PROCESS is None or _PROCESS.poll() is not None:
        _PROCESS = subprocess.Popen(
            python("-m", "llmchat.memory.readers.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(_stop)
    return _PROCESS


def _stop() -> None:
    global _PROCESS
    if _PROCESS is None:
        return
    process, _PROCESS = _PROCESS, None
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
    atexit.unregister(_stop)
