"""Measure this machine without torch: free memory of RAM and GPUs, free space on disks."""

import shutil
from pathlib import Path

from msgspec import Struct

from llmchat.hub import cache, local_store
from llmchat.hub.gpus import list_gpus
from llmchat.hub.inspection import Inspection
from llmchat.memory_estimate import available_ram, installed_ram
from llmchat.settings import World


class Disk(Struct, frozen=True):
    """Bytes that a pull takes on a disk, and that are free there."""

    folder: str
    """A folder on the disk."""
    needed: int
    """Bytes that the pull writes there."""
    free: int
    """Free bytes."""


class Machine(Struct, frozen=True):
    """Free memory in bytes. gpus: name → free memory of each."""

    ram: int
    gpus: tuple[tuple[str, int], ...] = ()


def this_machine(world: World) -> Machine:
    gpus = tuple((gpu.name, gpu.free) for gpu in list_gpus(world.env))
    return Machine(available_ram(), gpus)


def installed(world: World) -> tuple[int, ...]:
    """Bytes of each memory that a model could live in, used or not: the RAM, then the GPUs."""
    return (installed_ram(), *(gpu.total for gpu in list_gpus(world.env)))


def disks(parts: list[Inspection], world: World) -> tuple[Disk, ...]:
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
    """Whether `count` more bytes fit on the disk of our cache, together with a pull's own."""
    folder = _existing(local_store.models(world))
    reserved = sum(
        disk.needed
        for disk in taken
        if _existing(Path(disk.folder)).stat().st_dev == folder.stat().st_dev
    )
    return count + reserved <= shutil.disk_usage(folder).free


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
