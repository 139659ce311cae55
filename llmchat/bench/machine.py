"""The machine a benchmark ran on, in a few facts."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmchat.bench.peer_protocol import cores
from llmchat.hub.machine import Machine
from llmchat.memory_estimate import available_ram
from llmchat.process.programs import python

# The CPU features that the speed of the kernels depends on, widest first.
_FEATURES = (
    "amx_int8",
    "amx_tile",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512f",
    "avx2",
    "asimddp",
    "neon",
)


def facts(device: str, machine: Machine) -> dict[str, Any]:
    return {
        "device": device,
        "processor": _processor(),
        "features": _features(),
        "cores": cores(),
        "gpus": [name for name, _ in machine.gpus] if device != "cpu" else [],
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("llmchat", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def used_device(device: str, machine: Machine, env: Mapping[str, str]) -> str:
    """Resolve `auto` as the engines do; imports torch in another process, if there is a GPU."""
    if device != "auto":
        return device
    if not machine.gpus:
        return "cpu"
    done = subprocess.run(
        python("-c", "import torch; print(torch.cuda.is_available())"),
        capture_output=True,
        text=True,
        env=dict(env),
    )
    return "cuda" if done.stdout.strip() == "True" else "cpu"


def room(device: str, machine: Machine) -> int:
    """Bytes of memory that models may use on a device."""
    return (
        sum(free for _, free in machine.gpus)
        if device.startswith("cuda") and machine.gpus
        else available_ram()
    )


def memory_missing(needed: int, room: int) -> str:
    """Why something is not measured: what it needs, and what is free."""
    return f"it needs {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are free"


def _processor() -> str:
    return next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )


def _features() -> list[str]:
    line = next((line for line in _cpuinfo() if line.startswith(("flags", "Features"))), "")
    return [name for name in _FEATURES if name in line.split()]


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
