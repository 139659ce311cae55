"""Download a wheel with pip, within the limits of our own downloads.

pip sets no limit for a server that is slow or never ends. All of its files, temporary ones as well,
go into one folder: their growth is its progress, and their size is bounded.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmchat.errors import NetworkError
from llmchat.hub.retry import TransferLimits
from llmchat.output.formatting import byte_count
from llmchat.process.programs import python
from llmchat.settings import World

# Address space: an endless index page must not fill the machine's memory.
_MOST_MEMORY = 4 << 30
# For pip's own files.
_SLACK = 50_000_000
_POLL = 0.1


def download(
    wanted: str, room: Path, expected: int, world: World, advance: Callable[[int], None]
) -> Path:
    """Download the wheel of a requirement into `room`.

    expected: its bytes, 0 if unknown; advance: called with the bytes that arrived. Raises
    NetworkError where pip fails, makes no progress for a window, or fetches far more than expected.
    """
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check"]
    command += [
        "--no-deps",
        "--no-cache-dir",
        "--only-binary",
        ":all:",
        "--dest",
        str(room),
        wanted,
    ]
    env = {**world.env, "TMPDIR": str(room)}
    with (room / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            **_limits(),
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


def _pip() -> tuple[str, ...]:
    """The command of pip: of this environment, or the one that Python itself brings.

    `uv tool install` makes environments without pip.
    """
    if find_spec("pip") is None:
        for wheel in (wheel for place in _places_of_wheels() for wheel in place.glob("pip-*.whl")):
            return python(str(wheel / "pip"))
    return python("-m", "pip")


def _places_of_wheels() -> list[Path]:
    """Where ensurepip has its wheels: beside its code, or where the distribution puts them."""
    spec = find_spec("ensurepip")
    own = [Path(spec.origin).parent / "_bundled"] if spec and spec.origin else []
    return [*own, Path("/usr/share/python-wheels")]


def _growth(
    process: "subprocess.Popen[bytes]",
    wanted: str,
    room: Path,
    expected: int,
    limits: TransferLimits,
) -> Iterator[int]:
    """Bytes that arrived since the last poll, until pip ends."""
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
            # In the last step pip checks and moves the file; no bytes arrive.
            if seen - marked < limits.step and seen < expected * 0.99 + 1:
                raise NetworkError(
                    f"the package index is too slow for {wanted}: {limits.too_slow}",
                    "`pip config list` shows pip's index; LLMCHAT_PULL_RATE sets the limit",
                )
            marked, since = seen, time.monotonic()


def _bytes(room: Path) -> int:
    total = 0
    for folder, _, names in os.walk(room):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _limits() -> dict[str, Any]:
    """Options of a process of its own with little memory; Windows sets no such limit."""
    try:
        import resource
    except ImportError:
        return {}
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    return {"preexec_fn": limit, "start_new_session": True}


def _error(wanted: str, output: str) -> NetworkError:
    lines = [
        line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR")
    ]
    if "No module named pip" in output:
        return NetworkError(
            "this Python has no pip, which downloads the model",
            "`python -m ensurepip` installs it, `uv tool install --with pip` as well",
        )
    last = lines[-1] if lines else "no reason given"
    reason = "".join(letter for letter in last[:300] if letter.isprintable())
    return NetworkError(
        f"pip cannot download {wanted}: {reason}",
        "check the network and pip's index settings; `pip config list` shows them",
    )
