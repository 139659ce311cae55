"""What this machine has: memory of its GPUs and its own, room on the disks. Asked without torch."""

import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

from llmchat.hub import cache, local_store
from llmchat.hub.inspect import Survey
from llmchat.memory_estimate import available_ram, installed_ram
from llmchat.process.programs import which
from llmchat.settings import World


class Disk(Struct, frozen=True):
    """Bytes that a pull takes on a disk, and that are free there."""

    folder: str
    needed: int
    free: int


class Machine(Struct, frozen=True):
    """Free memory in bytes. gpus: name → free memory of each."""

    ram: int
    gpus: tuple[tuple[str, int], ...] = ()


def this_machine(world: World) -> Machine:
    return Machine(available_ram(), _gpus(world))


def installed(world: World) -> tuple[int, ...]:
    """Bytes of each memory that a model could live in, whatever else is in it at this moment: the RAM, the GPUs."""
    return (installed_ram(), *(total for _, total in _gpus(world, "memory.total")))


def disks(parts: list[Survey], world: World) -> tuple[Disk, ...]:
    """What the parts take, by disk: the shared Hub cache and our own may lie on two."""
    needs = {cache.hub_cache(world): 0, local_store.models(world): 0}
    for part in parts:
        if part.source.kind == "hub":
            needs[cache.hub_cache(world)] += part.missing
            needs[local_store.models(world)] += part.disk - part.missing
        else:
            needs[local_store.models(world)] += part.disk
    by_device: dict[int, tuple[Path, int]] = {}
    for folder, need in ((folder, need) for folder, need in needs.items() if need):
        device = _existing(folder).stat().st_dev
        first, sum_ = by_device.get(device, (folder, 0))
        by_device[device] = (first, sum_ + need)
    return tuple(
        Disk(str(folder), need, shutil.disk_usage(_existing(folder)).free)
        for folder, need in by_device.values()
    )


def has_room(count: int, taken: tuple[Disk, ...], world: World) -> bool:
    """Whether `count` bytes more fit beside what a pull takes on the disk of our own cache."""
    folder = _existing(local_store.models(world))
    beside = sum(
        disk.needed
        for disk in taken
        if _existing(Path(disk.folder)).stat().st_dev == folder.stat().st_dev
    )
    return count + beside <= shutil.disk_usage(folder).free


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gpus(world: World, what: str = "memory.free") -> tuple[tuple[str, int], ...]:
    """Name and free bytes, or what else of its memory is asked for, of each GPU that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves; none where there is no such program."""
    tool = which("nvidia-smi", world.env)
    visible = world.env.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible in ("", "-1"):
        return ()
    command = [tool, f"--query-gpu=index,name,{what}", "--format=csv,noheader,nounits"]
    if visible:
        command.insert(1, f"--id={visible}")
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            stdin=subprocess.DEVNULL,
            env=dict(world.env),
        )
        rows = [line.split(", ") for line in done.stdout.splitlines() if not done.returncode]
        return tuple((name, int(free) * 1024**2) for _, name, free in rows)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ()
