"""Inspect a source before its weights are fetched: sizes, config, shapes, licence, code."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import IntegrityError, LlmchatError, Mismatch, ModelNotFound, NetworkError
from llmchat.hub import cache, headers, local_store, remote
from llmchat.hub.cache import RemoteFile
from llmchat.hub.endpoint import offline
from llmchat.hub.gguf_folder import inspect_header, is_known, weights_of_pointer
from llmchat.hub.gguf_remote import inspect_here, inspect_variants
from llmchat.hub.gguf_repo import Variant, is_gguf_repo
from llmchat.hub.http import get
from llmchat.hub.inspection import Inspection
from llmchat.hub.integrity import damaged_files
from llmchat.hub.local import find_path, receipt_here
from llmchat.hub.packed_folder import weights_of_packed
from llmchat.hub.pulled_gguf import canonical, gguf_here
from llmchat.hub.remote import Listing
from llmchat.hub.repo import choose, intact_receipt, is_weights, list_repo, read_object
from llmchat.hub.response_guard import explained, readable
from llmchat.hub.retry import TransferLimits
from llmchat.hub.types import Checkpoint, Receipt
from llmchat.hub.weights import Quantised, weight_facts
from llmchat.presets.types import FileFact, Source
from llmchat.quantisation import Fact, declared, method_of
from llmchat.quantisation.config import OWN_TABLE, with_own_table
from llmchat.settings import World

_SMALL = ("config.json", "adapter_config.json", OWN_TABLE)


_LONGEST_INDEX = 5_000_000


class _IndexFile(Struct):
    packagetype: str
    size: int


class _Index(Struct):
    """The part of PyPI's JSON about one version that is used."""

    urls: list[_IndexFile]


def inspect(source: Source, world: World, code: bool = False, thorough: bool = False) -> Inspection:
    """Inspect a source where it is. Raises as a pull would, for a gated or missing repo.

    code: the checkpoint may bring Python files; thorough: read the files on this machine again, see
    `integrity`.
    """
    with readable("a file", source):
        return _INSPECTIONS[source.kind](source, world, code, thorough)


def inspect_folder(checkpoint: Checkpoint, **more: Any) -> Inspection:
    """Inspect a checkpoint on this machine."""
    folder = checkpoint.path
    small = {
        name: read_object((folder / name).read_bytes(), name)
        for name in _SMALL
        if (folder / name).is_file()
    }
    shapes, quantised = (
        weights_of_pointer(folder)
        or weights_of_packed(folder)
        or weight_facts(_with_quantisation(small), headers.facts_of_folder(folder))
    )
    return Inspection(
        checkpoint.source,
        checkpoint.revision,
        here=True,
        size=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        weights=checkpoint.size,
        config=small.get("config.json", {}),
        adapter=small.get("adapter_config.json", {}),
        shapes=shapes,
        quantised=quantised,
        **more,
    )


def _of_repo(source: Source, world: World, code: bool, thorough: bool) -> Inspection:
    source = canonical(source, world)
    receipt = intact_receipt(source, world, thorough=thorough)
    if receipt and (offline(world) or (cache.COMMIT.fullmatch(source.revision) and not code)):
        return _of_receipt(source, receipt)
    try:
        listing = list_repo(source, world, once=receipt is not None)
    except (NetworkError, IntegrityError) as error:
        if receipt:
            # Without the list, what is on this machine is used.
            return _of_receipt(
                source, receipt, notes=(f"not checked for updates: {error.message}",)
            )
        raise
    if is_gguf_repo(source, listing.files):
        return _of_gguf_repo(source, world, listing, receipt)
    files = _chosen(source, world, listing, code)
    scripts = tuple(file.name for file in files if file.name.endswith(".py"))
    known = {
        "licence": listing.licence,
        "gated": listing.gated,
        "code": scripts,
        "listing": listing,
    }
    if receipt and receipt.revision == listing.commit and set(scripts) <= set(receipt.files):
        return _of_receipt(source, receipt, **known)
    return _of_files(source, world, files, known)


def _of_receipt(source: Source, receipt: Receipt, **more: Any) -> Inspection:
    """What was pulled. more: other facts about it."""
    if source.is_gguf:
        return inspect_here(source, receipt, **more)
    return inspect_folder(local_store.to_checkpoint(source, receipt), **more)


def _of_gguf_repo(
    source: Source, world: World, listing: Listing, receipt: Receipt | None
) -> Inspection:
    known = {"licence": listing.licence, "gated": listing.gated, "listing": listing}
    if receipt and receipt.revision == listing.commit:
        return inspect_here(source, receipt, **known)
    repo = cache.repo_folder(world, source.repo)
    read = _reader(source, world, listing.commit, repo)
    return inspect_variants(source, listing, repo, read, known)


def _chosen(source: Source, world: World, listing: Listing, code: bool) -> list[RemoteFile]:
    """The files of a checkpoint. Where it has none, its config.json may say why."""
    try:
        return choose(source, listing.files, code)
    except Mismatch:
        config = next((file for file in listing.files if file.name == "config.json"), None)
        if config is not None:
            content = remote.read_small(source, world, listing.commit, config)
            _refuse_method(source, read_object(content, config.name))
        raise


def _refuse_method(source: Source, config: dict[str, Any]) -> None:
    """Raise Mismatch for a kind of quantisation that llmchat does not run."""
    table = declared(config)
    try:
        if table is not None:
            method_of(table)
    except Mismatch as error:
        raise Mismatch(f"{source}: {error.message}", error.hint) from error


def _of_files(
    source: Source, world: World, files: list[RemoteFile], known: dict[str, Any]
) -> Inspection:
    commit, repo = known["listing"].commit, cache.repo_folder(world, source.repo)
    receipt = local_store.raw_receipt(source, world)
    damaged = receipt.damaged if receipt else ()
    absent = [file for file in files if file.name in damaged or not cache.stored(repo, file)]
    partial = sum(cache.partial_size(repo, file) for file in absent)
    missing = sum(file.size for file in absent) - partial
    pickled = any(file.name.endswith(".bin") for file in files)
    read = _reader(source, world, commit, repo)
    small = {
        file.name: read_object(read(file)(0, file.size), file.name)
        for file in files
        if file.name in _SMALL
    }
    weights, config = [file for file in files if is_weights(file)], _with_quantisation(small)
    refuse_foreign_code(source, commit, small.get("config.json", {}), trusted=bool(known["code"]))
    facts = {} if pickled else _facts(weights, read)
    shapes, quantised = weight_facts(config, facts)
    return Inspection(
        source,
        commit,
        size=sum(file.size for file in files),
        missing=missing,
        partial=partial,
        disk=missing + (sum(file.size for file in weights) if pickled else 0),
        weights=sum(file.size for file in weights),
        files=len(files),
        form="pickle" if pickled else "safetensors",
        config=small.get("config.json", {}),
        adapter=small.get("adapter_config.json", {}),
        shapes=shapes,
        quantised=quantised,
        **known,
    )


def _reader(
    source: Source, world: World, commit: str, repo: Path
) -> Callable[[RemoteFile], Callable[[int, int], bytes]]:
    """File → function that reads a part of it: from the cache if it is there, else from the Hub."""

    def small(file: RemoteFile, start: int, count: int) -> bytes:
        return remote.read_small(source, world, commit, file)[start : start + count]

    def reader(file: RemoteFile) -> Callable[[int, int], bytes]:
        if content := cache.stored(repo, file):
            return lambda start, count: _read_part(content, start, count)
        if file.name in _SMALL:
            return lambda start, count: small(file, start, count)
        return lambda start, count: remote.read_range(source, world, commit, file, start, count)

    return reader


def _read_part(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def _facts(
    weights: list[RemoteFile], read: Callable[[RemoteFile], Callable[[int, int], bytes]]
) -> dict[str, Fact]:
    with ThreadPoolExecutor(4) as pool:
        parts = list(
            pool.map(lambda file: headers.read_facts(read(file), file.size, file.name), weights)
        )
    return {name: fact for part in parts for name, fact in part.items()}


def _with_quantisation(small: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """config.json, with what older checkpoints describe in a file of its own."""
    return with_own_table(small.get("config.json", {}), small.get(OWN_TABLE, {}))


def refuse_foreign_code(source: Source, commit: str, config: dict[str, Any], trusted: bool) -> None:
    """Raise Mismatch for a checkpoint that needs its own code, unless it is trusted.

    Code of another repo is refused in any case: its commit would not be fixed.
    """
    names = config.get("auto_map")
    if not isinstance(names, dict) or not names:
        return
    if trusted:
        elsewhere = next(
            (str(name).partition("--")[0] for name in names.values() if "--" in str(name)), ""
        )
        if elsewhere:
            raise Mismatch(
                f"{source} would run code of another repo, {elsewhere}, at no fixed commit",
                "use a model whose code is in its own repo",
            )
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise Mismatch(
            f"{source} needs Python code of its own: transformers does not support"
            f" `{config.get('model_type', 'it')}`",
            f"--trust-remote-code runs the code of {source.repo}{commit and f'@{commit}'} on this"
            " machine; read it first",
        )


def _of_wheel(source: Source, world: World, code: bool, thorough: bool) -> Inspection:
    receipt = intact_receipt(source, world, thorough=thorough)
    if receipt:
        return inspect_folder(local_store.to_checkpoint(source, receipt))
    if offline(world):
        raise NetworkError(
            f"offline mode is on, and {source} is not on this machine",
            "leave --offline and HF_HUB_OFFLINE out to download it",
        )
    size = (source.archive or FileFact()).size or _size_in_index(source, world)
    unpacked = sum(fact.size for fact in source.files.values())
    notes = () if size else ("the package index does not report its size",)
    # A quantised GGUF of n bytes becomes at most four times as large in bf16.
    return Inspection(
        source,
        source.revision,
        size=size,
        missing=size,
        disk=size + 5 * unpacked,
        weights=unpacked,
        files=len(source.files),
        form="wheel",
        notes=notes,
    )


def _size_in_index(source: Source, world: World) -> int:
    """Bytes of the wheel by PyPI's JSON; 0 without an answer, as from a private index."""
    index = (
        world.env.get("PIP_INDEX_URL", "https://pypi.org/simple")
        .rstrip("/")
        .removesuffix("/simple")
    )
    limits = replace(TransferLimits.of(world), silence=5)
    try:
        with (
            explained(source, world),
            get(f"{index}/pypi/{source.repo}/{source.revision}/json", {}, limits) as answer,
        ):
            found = msgspec.json.decode(answer.body(_LONGEST_INDEX), type=_Index)
    except (LlmchatError, OSError):
        return 0
    return max((file.size for file in found.urls if file.packagetype == "bdist_wheel"), default=0)


def _of_path(source: Source, world: World, code: bool, thorough: bool) -> Inspection:
    try:
        found, receipt = find_path(source, world), receipt_here(source, world)
        if receipt is None or not damaged_files(source, world, receipt, thorough=thorough):
            return inspect_folder(found)
    except ModelNotFound:
        path = Path(source.repo)
        if not path.exists():
            raise
    size = (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.glob("*.bin"))
    )
    kind = "gguf" if path.is_file() else "pickle"
    small = {
        name: read_object((path / name).read_bytes(), name)
        for name in _SMALL
        if (path / name).is_file()
    }
    config, shapes, quantised = (
        inspect_header(path)
        if kind == "gguf" and path.suffix == ".gguf"
        else (small.get("config.json", {}), {}, Quantised())
    )
    return Inspection(
        source,
        size=size,
        disk=_disk_for(path, kind) * size,
        weights=size,
        form=kind,
        config=config,
        shapes=shapes,
        quantised=quantised,
        adapter=small.get("adapter_config.json", {}),
    )


def _disk_for(path: Path, kind: str) -> int:
    """How many times the size of its files a pull takes. A GGUF file of a model with a plan stays
    as it is; of any other it is dequantised.
    """
    return (0 if is_known(path) else 4) if kind == "gguf" else 1


def inspect_choice(found: Inspection, variant: Variant, world: World) -> Inspection:
    """Inspect a variant of a GGUF repo that was inspected without one."""
    listing = found.listing
    assert listing is not None
    repo = cache.repo_folder(world, found.source.repo)
    read = _reader(found.source, world, listing.commit, repo)
    known = {"licence": found.licence, "gated": found.gated, "listing": listing}
    return inspect_variants(replace(found.source, variant=variant.name), listing, repo, read, known)


def _of_stored(source: Source, world: World, code: bool, thorough: bool) -> Inspection:
    """A model of another program: its file, under the name that it has there."""
    found = _of_path(gguf_here(source, world), world, code, thorough)
    return replace(found, source=source)


_INSPECTIONS = {
    "hub": _of_repo,
    "pypi": _of_wheel,
    "path": _of_path,
    "ollama": _of_stored,
    "lmstudio": _of_stored,
}
