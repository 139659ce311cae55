"""Set up the process before a command runs.

The only place that writes os.environ for libraries that cannot be configured otherwise.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Literal, NoReturn, TextIO

from llmchat.errors import UsageError

# OpenMP's threads wait for each other in a loop. On a machine where another program works too,
# they would wait most of the time: one answer took half a minute instead of three seconds
# (docs/log.md). 5,000 rounds cost little where llmchat is alone.
SPIN_COUNT = {"GOMP_SPINCOUNT": "5000"}


def configure_libraries(env: Mapping[str, str]) -> None:
    """Set what libraries read from the process's environment, and hide their warnings.

    LLMCHAT_TRACEBACK in `env` leaves the warnings on.
    """
    os.environ["TQDM_DISABLE"] = "1"
    disable_telemetry()
    limit_spinning()
    if not env.get("LLMCHAT_TRACEBACK"):
        warnings.simplefilter("ignore")


def configure_datasets(*, offline: bool) -> None:
    """Hide the progress bars of `datasets`; offline: keep it and huggingface_hub off the network.

    Both read their settings once, when they are imported.
    """
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")


def disable_telemetry() -> None:
    """Keep huggingface_hub from reporting its use."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def limit_spinning() -> None:
    """Limit how long OpenMP's threads spin, unless the user set it."""
    for name, value in SPIN_COUNT.items():
        os.environ.setdefault(name, value)


def open_closed_streams() -> UsageError | None:
    """Replace streams that the shell closed (`<&-`, `2>&-`).

    Returns the error for a closed stdout: where nothing can be printed, no command may run.
    """
    if sys.stderr is None:
        sys.stderr = _null_stream("w")
    if sys.stdin is None:
        sys.stdin = _null_stream("r")
    if sys.stdout is not None:
        return None
    sys.stdout = _null_stream("w")
    return UsageError(
        "stdout is closed, so nothing can be printed",
        "leave out `>&-`; `>/dev/null` discards output",
    )


def exit_at_once(code: int) -> NoReturn:
    """End the process without waiting for its threads; what was printed is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _null_stream(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")
