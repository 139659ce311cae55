"""Runs a program and ends it, with everything that it started, when llmchat ends.

    python keeper.py PARENT PROGRAM ARGUMENT…

The keeper adopts what its program leaves in the background (PR_SET_CHILD_SUBREAPER), so nothing
that detaches itself is lost. It cleans up when its program ends, at SIGTERM, and when the process
PARENT dies, in whatever way (PR_SET_PDEATHSIG). It imports nothing of llmchat, to start fast.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator

# Seconds that the program has to end by itself (its stdin is closed), and then after SIGTERM.
PATIENCE = 1.0
# Nothing survives SIGKILL, except what waits for a device.
LAST_PATIENCE = 5.0
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_WAITED_FOR = _ENDS | {signal.SIGCHLD}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(parent: int, command: list[str]) -> int:
    """Run `command` until it ends or must end. Returns its exit code, 128 + N for signal N."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    program = os.fork()
    if program == 0:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _become(command)
    # Only the program holds the pipes, so its end is seen at their other side.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return _keep(program)


def _become(command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(126)


def _keep(program: int) -> int:
    code: int | None = None
    while code is None and signal.sigwait(_WAITED_FOR) == signal.SIGCHLD:
        code = _reaped(program)
    if code is None:
        code = _waited(program, PATIENCE)
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, LAST_PATIENCE)):
        ended = _ended(program, number, patience)
        code = ended if code is None else code
    return 128 + signal.SIGKILL if code is None else code


def _waited(program: int, patience: float) -> int | None:
    """The exit code of the program, if it ends within so many seconds."""
    until = time.monotonic() + patience
    while (code := _reaped(program)) is None and (left := until - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
    return code


def _ended(program: int, number: int, patience: float) -> int | None:
    """Send a signal to everything that is left, until nothing is or the time is over."""
    until, code, told = time.monotonic() + patience, None, set[int]()
    while (left := set(_descendants(os.getpid()))) and time.monotonic() < until:
        for process in left - told if number != signal.SIGKILL else left:
            _send(process, number)
        told |= left
        signal.sigtimedwait({signal.SIGCHLD}, 0.02)
        ended = _reaped(program)
        code = ended if code is None else code
    return code


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return


def _reaped(program: int) -> int | None:
    """Take leave of all children that ended. Returns the exit code of the program, if it did."""
    code = None
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if process == 0:
            return code
        if process == program:
            exit_code = os.waitstatus_to_exitcode(status)
            code = exit_code if exit_code >= 0 else 128 - exit_code


def _descendants(ancestor: int) -> Iterator[int]:
    """Children, their children and so on."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [ancestor]
    while waiting:
        found = children.get(waiting.pop(), [])
        waiting += found
        yield from found


def _parent(process: int) -> int | None:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            facts = file.read()
    except OSError:
        return None
    # The name of the program stands in brackets, and may hold anything.
    return int(facts.rpartition(")")[2].split()[1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
