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

# What decides the speed of the kernels of a CPU, widest first.
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
    """The device that `auto` becomes, as engines choose it. torch is asked only where there is a GPU, in a process of its own."""
    if device != "auto":
        return device
    if not machine.gpus:
        return "cpu"
    asked = subprocess.run(
        python("-c", "import torch; print(torch.cuda.is_available())"),
        capture_output=True,
        text=True,
        env=dict(env),
    )
    return "cuda" if asked.stdout.strip() == "True" else "cpu"


def room(device: str, machine: Machine) -> int:
    """Bytes that models may take there."""
    return (
        sum(free for _, free in machine.gpus)
        if device.startswith("cuda") and machine.gpus
        else available_ram()
    )


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
