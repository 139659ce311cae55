"""Folders that take long to make: made once in a run, then copied for each process of pytest."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# Larger files are linked: they are weights, and nobody writes into them.
_LINKED_BYTES = 1_000_000


def own_copy(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """What `make` puts into an empty folder; the other processes of pytest wait until it is there.

    Each has its own files, locks above all, and shares the contents of large ones. Receipts of
    downloads, which contain their paths, follow them.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(folder := factory.mktemp(name))
        return folder
    shared = base.parent / f"shared-{name}"
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            shared.mkdir()
            make(shared)
    own = Path(shutil.copytree(shared, base / name, symlinks=True, copy_function=_link_or_copy))
    for receipt in own.rglob("receipts/*.json"):
        receipt.write_text(receipt.read_text().replace(str(shared), str(own)))
    return own


def _link_or_copy(source: str, target: str) -> None:
    if os.path.getsize(source) > _LINKED_BYTES and not os.path.islink(source):
        os.link(source, target)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
