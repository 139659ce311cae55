"""From a source to its GGUF file on this machine, in the Hub's cache or another program's store.

A pulled file may be named in other words than at its pull: `org/repo` where it is the only one,
`org/repo:FILE.gguf` for `org/repo:Q4_K_M`.
"""

from pathlib import Path

from msgspec.structs import replace

from llmchat.errors import ModelNotFound
from llmchat.hub import cache, local_store
from llmchat.hub.cache import RemoteFile
from llmchat.hub.gguf_repo import Variant, is_called, variants
from llmchat.hub.stores import StoredModel, find_stored, with_ending
from llmchat.hub.types import Receipt
from llmchat.presets.types import Source
from llmchat.settings import World


def canonical(source: Source, world: World, *, cached: bool = False) -> Source:
    """The source under which a repo's GGUF file was pulled; the source itself for all others.

    cached: what other tools put into the Hub's cache counts as well.
    """
    if source.kind != "hub" or not source.variant or local_store.raw_receipt(source, world):
        return source
    named = _named(source, world, cached=cached)
    return named[0] if len(named) == 1 else source


def only_variant(source: Source, world: World) -> Source:
    """The one GGUF file of a repo that is on this machine; the source itself where none is.

    Raises ModelNotFound where several are.
    """
    if source.kind != "hub" or source.variant or local_store.raw_receipt(source, world):
        return source
    named = _named(source, world, cached=True)
    if len(named) > 1:
        names = ", ".join(one.name for one in named)
        raise ModelNotFound(f"{source} has several files on this machine", f"name one: {names}")
    return named[0] if named else source


def gguf_here(source: Source, world: World) -> Source:
    """The path of a source's GGUF file, or of its first part, as a source of its own.

    Raises ModelNotFound where it is not on this machine.
    """
    if source.kind == "path":
        return source
    if source.kind != "hub":
        stored = find_stored(source, world)
        return Source("path", str(with_ending(stored.file, source.repo, world)))
    if receipt := local_store.raw_receipt(source, world):
        file = (
            Path(receipt.path) / gguf_files(receipt)[0] if local_store.is_whole(receipt) else None
        )
    else:
        file = _file_in_cache(source, world)
    if file is None:
        raise ModelNotFound(f"{source} is not on this machine")
    return Source("path", str(file))


def cached_variants(source: Source, world: World) -> tuple[Path, tuple[Variant, ...]]:
    """The GGUF files that another tool put into the Hub's cache for a repo, and their folder.

    Other tools check what they download, so files are taken as they are; a pull checks them again.
    """
    folder = cache.snapshot_here(cache.repo_folder(world, source.repo), source.revision or "main")
    if folder is None:
        return Path(), ()
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return folder, ()
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*.gguf")))
    files = (
        RemoteFile(name, (folder / name).stat().st_size, "", large=True)
        for name in names
        if (folder / name).is_file()
    )
    return folder, variants(files)


def list_cached(world: World) -> list[StoredModel]:
    """The GGUF files of the Hub's cache that llmchat did not pull."""
    found = []
    for repo in sorted(cache.hub_cache(world).glob("models--*--*")):
        source = Source("hub", repo.name.removeprefix("models--").replace("--", "/", 1))
        pulled = {name for one in local_store.receipts_of_repo(source, world) for name in one.files}
        folder, known = cached_variants(source, world)
        found += [
            StoredModel(replace(source, variant=one.name), folder / one.files[0].name, one.size)
            for one in known
            if not pulled.intersection(file.name for file in one.files)
        ]
    return found


def _named_in_cache(source: Source, world: World) -> list[Source]:
    """The files in the Hub's cache that a source can mean."""
    _, known = cached_variants(source, world)
    return [
        replace(source, variant=one.name)
        for one in known
        if not source.variant
        or is_called(source.variant, one.name, (file.name for file in one.files))
    ]


def _file_in_cache(source: Source, world: World) -> Path | None:
    """The file of a source's variant in the Hub's cache, or its first part."""
    folder, known = cached_variants(source, world)
    return next((folder / one.files[0].name for one in known if one.name == source.variant), None)


def gguf_files(receipt: Receipt) -> list[str]:
    """The GGUF files of a pulled model, in the order of their parts."""
    return sorted(name for name in receipt.files if name.endswith(".gguf"))


def _named(source: Source, world: World, *, cached: bool) -> list[Source]:
    """The GGUF files on this machine that a source can mean."""
    pulled = [
        replace(receipt.source, revision=source.revision)
        for receipt in local_store.receipts_of_repo(source, world)
        if receipt.source
        and receipt.source.variant
        and receipt.source.revision == source.revision
        and (not source.variant or is_called(source.variant, receipt.source.variant, receipt.files))
    ]
    return pulled or (_named_in_cache(source, world) if cached else [])
