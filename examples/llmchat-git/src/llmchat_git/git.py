"""Run git, read-only, without the programs that a repository's configuration can name."""

import subprocess
from pathlib import Path
from threading import Event

from llmchat.errors import LlmchatError

# Paths are taken as they are written; no index is refreshed and no file monitor is started.
_READ_ONLY = (
    "--no-pager", "--literal-pathspecs", "--no-optional-locks", "-c", "core.fsmonitor=false",
    "-c", "log.showSignature=false",
)  # fmt: skip
# Neither `diff.external` nor a `textconv` of .gitattributes runs.
PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")


class GitError(LlmchatError):
    """git failed; the message is its own."""


def git(folder: Path, *arguments: str, stop: Event | None = None) -> str:
    """The output of a git command that changes nothing. stop: ends it early.

    Raises GitError where git fails, is missing or is stopped.
    """
    command = ["git", "-C", str(folder), *_READ_ONLY, *arguments]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            out, told = _read(process, stop or Event())
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
    if process.returncode:
        lines = told.decode("utf-8", "replace").strip().splitlines()
        raise GitError(lines[0].removeprefix("fatal: ") if lines else "git failed")
    return out.decode("utf-8", "replace")


def _read(process: "subprocess.Popen[bytes]", stop: Event) -> tuple[bytes, bytes]:
    while True:
        try:
            return process.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                process.kill()
                process.wait()
                raise GitError("git was stopped") from None


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters that says what was cut."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[{len(text) - most:,} more characters]"
