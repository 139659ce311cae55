"""The models of other programs on this machine, read where they are: ollama and LM Studio.

Nothing here writes to their stores.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from llmchat.hub.stores import lm_studio, ollama
from llmchat.hub.stores.types import StoredModel
from llmchat.presets.types import Source
from llmchat.settings import World

__all__ = ["STORES", "StoredModel", "find_stored", "list_stored", "with_ending"]

# Kinds of sources → where they are found.
STORES = {"ollama": ollama, "lmstudio": lm_studio}


def find_stored(source: Source, world: World) -> StoredModel:
    """The model that a source of the kind `ollama` or `lmstudio` names.

    Raises ModelNotFound for an unknown name, Mismatch for a model that is not a GGUF file,
    IntegrityError for a damaged store.
    """
    find: Callable[[str, World], StoredModel] = STORES[source.kind].find
    return find(source.repo, world)


def list_stored(world: World) -> list[StoredModel]:
    """Every GGUF model of these stores, sorted by name; damaged entries are left out."""
    found = [model for store in STORES.values() for model in store.models(world)]
    return sorted(found, key=lambda model: model.source.name)


def with_ending(file: Path, name: str, world: World) -> Path:
    """A path of a file that ends in `.gguf`: the file's own, or a link in llmchat's cache.

    Ollama's blobs have no ending, and the ending is how a file is known to be a model.
    """
    if file.suffix == ".gguf":
        return file
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:10]
    link = world.cache / "links" / f"{name.replace('/', '--').replace(':', '-')}-{digest}.gguf"
    if not link.is_symlink() or link.readlink() != file:
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(file)
        fresh.replace(link)
    return link
