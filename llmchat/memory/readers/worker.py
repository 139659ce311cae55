"""The process that reads PDF, docx and HTML for `child`: messages on stdin, answers on stdout.

Files are hostile input for large parsers. In a process of its own they have limits of memory and
time, and what it does to itself harms nobody. A message is its length in 8 bytes and its JSON.
"""

import resource
import signal
import sys
from typing import IO

import msgspec
from msgspec import Struct

from llmchat.errors import LlmchatError
from llmchat.memory.readers.types import Document

MEMORY = 2_000_000_000
SECONDS = 60


class Job(Struct, frozen=True):
    """A file to read. kind: `pdf`, `docx` or `html`."""

    name: str
    kind: str
    data: bytes


class Done(Struct, frozen=True):
    """What came of a job: a document, or an error with its hint."""

    document: Document | None = None
    error: str = ""
    hint: str = ""


def main() -> None:
    """Answer until stdin ends. Limits hold from here on."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # Parsers write warnings; the answers have stdout for themselves.
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while message := receive(sys.stdin.buffer):
        # If the parent is killed during a job, nobody ends this process but the alarm.
        signal.alarm(SECONDS)
        send(answers, msgspec.json.encode(work(msgspec.json.decode(message, type=Job))))
        signal.alarm(0)


def work(job: Job) -> Done:
    """Read a file in this process."""
    try:
        return Done(_read(job))
    except LlmchatError as error:
        return Done(error=error.message, hint=error.hint)
    except MemoryError:
        return Done(error=f"{job.name} needs too much memory")
    except Exception as error:
        # Parsers fail in many ways on files that were made to make them fail.
        return Done(error=f"{job.name} cannot be read: it is damaged ({type(error).__name__})")


def _read(job: Job) -> Document:
    if job.kind == "pdf":
        from llmchat.memory.readers.pdf import read_pdf

        return read_pdf(job.data, job.name)
    if job.kind == "docx":
        from llmchat.memory.readers.docx import read_docx

        return read_docx(job.data, job.name)
    from llmchat.memory.readers.html import read_html

    return read_html(job.data, job.name)


def send(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(8, "big") + message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """The next message; empty at the end of the stream."""
    size = int.from_bytes(stream.read(8), "big")
    return stream.read(size)


if __name__ == "__main__":
    main()
