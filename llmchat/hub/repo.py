"""Pull a Hub repo: choose the files a checkpoint needs, download, check and convert them."""

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, Mismatch, ModelNotFound, NetworkError
from llmchat.hub import cache, local_store, remote
from llmchat.hub.cache import RemoteFile
from llmchat.hub.convert import has_only_pickles, pickles_to_folder
from llmchat.hub.download import fetch_all, room_needed
from llmchat.hub.endpoint import offline
from llmchat.hub.gguf_repo import choose_variant, variants, with_variant
from llmchat.hub.integrity import combined_error, damaged_files, repair_hint
from llmchat.hub.pulled_gguf import canonical
from llmchat.hub.remote import Listing
from llmchat.hub.types import Fact, Pulled, Receipt
from llmchat.output.formatting import byte_count
from llmchat.output.progress import Progress
from llmchat.presets.types import Source
from llmchat.settings import World

_BASE_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "chat_template.*", "vocab.*", "merges.txt", "spiece.model",
    "sentencepiece*.model", "ice_text.model", "tekken.json", "quantize_config.json",
)  # fmt: skip
# What sentence-transformers writes beside a checkpoint: how its vectors are made.
_EMBEDDER_FILES = (
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
)  # fmt: skip
_STEP_FILE = re.compile(r"\d+_\w+/(?:config\.json|model\.safetensors)")
# A file or its parts, the first that a repo has. Variants (model.fp16.safetensors) are not used.
_BASE_WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def list_repo(source: Source, world: World, *, once: bool = False) -> Listing:
    """List a repo's files, see `remote.list_files`. Raises NetworkError in offline mode."""
    if offline(world):
        raise NetworkError(
            f"offline mode is on, and {source} is not on this machine",
            "leave --offline and HF_HUB_OFFLINE out to download it",
        )
    return remote.list_files(source, world, once=once)


def pull_repo(
    source: Source,
    world: World,
    progress: Progress,
    listing: Listing | None = None,
    code: bool = False,
) -> Pulled:
    """Download what is missing of a repo, check it, convert pickles and write a receipt.

    code: whether its Python files are downloaded as well.
    """
    source = canonical(source, world)
    receipt = intact_receipt(source, world)
    if receipt and not code and (cache.COMMIT.fullmatch(source.revision) or offline(world)):
        return Pulled(local_store.to_checkpoint(source, receipt), 0, ())
    try:
        listing = listing or list_repo(source, world, once=receipt is not None)
    except (NetworkError, IntegrityError) as error:
        if receipt:
            return Pulled(
                local_store.to_checkpoint(source, receipt),
                0,
                (f"already here; not checked for updates: {error.message}",),
            )
        raise
    source = with_variant(source, listing.files)
    chosen = choose(source, listing.files, code)
    codes = {file.name for file in chosen if file.name.endswith(".py")}
    if receipt and receipt.revision == listing.commit and codes <= set(receipt.files):
        return Pulled(local_store.to_checkpoint(source, receipt), 0, ())
    return _download(source, world, progress, listing, chosen)


def intact_receipt(source: Source, world: World, *, thorough: bool = False) -> Receipt | None:
    """The receipt of a complete pull without damaged files. thorough: read all files.

    Raises IntegrityError for a damaged file in offline mode, where it cannot be fetched.
    """
    receipt = local_store.read_receipt(source, world)
    wrong = damaged_files(source, world, receipt, thorough=thorough) if receipt else {}
    if wrong and offline(world):
        raise IntegrityError(
            f"{combined_error(wrong).message}; offline mode is on", repair_hint(source)
        )
    return None if wrong else receipt


def choose(source: Source, files: tuple[RemoteFile, ...], code: bool = False) -> list[RemoteFile]:
    """The files a checkpoint needs: safetensors, else pickles; Python files only with `code`.

    Of a GGUF repo those of the variant that the source names.
    """
    names = {file.name for file in files}
    if source.variant:
        return list(choose_variant(source, variants(files)).files)
    if source.files:
        lost = sorted(set(source.files) - names)
        if lost:
            raise ModelNotFound(f"{source} has no file {lost[0]}")
        return [file for file in files if file.name in source.files]
    if "adapter_config.json" in names and "config.json" not in names:
        patterns: tuple[str, ...] = (
            "adapter_config.json",
            *[name for name in _ADAPTER_WEIGHTS if name in names][:1],
        )
    else:
        patterns = (*_BASE_FILES, *_base_weights(source, names), *(("*.py",) if code else ()))
    embeds = "modules.json" in names
    chosen = [
        file
        for file in files
        if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns)
        or (embeds and (file.name in _EMBEDDER_FILES or _STEP_FILE.fullmatch(file.name)))
    ]
    if not any(is_weights(file) for file in chosen):
        raise Mismatch(
            f"{source} has no weights in a supported format",
            "it needs safetensors or pytorch_model.bin files",
        )
    _refuse_twins(chosen)
    return chosen


def _base_weights(source: Source, names: set[str]) -> tuple[str, ...]:
    """The names of the weight files. Raises ModelNotFound where the repo lacks some of them."""
    for stem, ending in _BASE_WEIGHTS:
        if f"{stem}.{ending}" in names:
            return (f"{stem}.{ending}",)
        parts = sorted(
            name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.{ending}", name)
        )
        if parts:
            whole = int(parts[-1].rpartition("-")[2].partition(".")[0])
            if len(parts) != whole:
                raise ModelNotFound(
                    f"{source} is incomplete: it has {len(parts)} of {whole} parts of its weights"
                )
            return (*parts, f"{stem}.{ending}.index.json")
    return ()


def is_weights(file: RemoteFile) -> bool:
    return file.name.endswith((".safetensors", ".bin"))


def _refuse_twins(files: list[RemoteFile]) -> None:
    """Refuse names that differ in case alone: on some disks one would overwrite the other."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.name.casefold(), file.name)
        if other != file.name:
            raise IntegrityError(
                f"the names {other} and {file.name} in the repo differ in case alone; nothing was"
                " downloaded"
            )


def _download(
    source: Source, world: World, progress: Progress, listing: Listing, files: list[RemoteFile]
) -> Pulled:
    commit = listing.commit
    repo = cache.repo_folder(world, source.repo)
    local_store.need_room(repo, room_needed(repo, files))
    missing = {file.etag: file for file in files if not cache.stored(repo, file)}
    damaged = {
        file.etag: file
        for file in _damaged(
            source, world, progress, [file for file in files if file.etag not in missing]
        )
    }
    downloaded = fetch_all(source, world, progress, commit, [*missing.values(), *damaged.values()])
    snapshot = repo / "snapshots" / commit
    etags = [file.etag for file in files]
    for file in files:
        cache.link(repo, snapshot, file, alone=etags.count(file.etag) == 1)
    cache.write_ref(repo, source.revision or "main", commit)
    notes = (
        [f"{byte_count(downloaded)} downloaded"] if downloaded else ["all files were here already"]
    )
    folder = snapshot
    adapter = _is_adapter(snapshot)
    if not source.variant and has_only_pickles(snapshot, adapter):
        folder = local_store.models(world) / local_store.key(source)
        local_store.need_room(folder.parent, sum(file.size for file in files))
        progress.start("converting to safetensors", None)
        try:
            with local_store.fresh_folder(folder) as fresh:
                notes.append(pickles_to_folder(snapshot, fresh, adapter))
        finally:
            progress.done()
        size, facts = local_store.describe(folder)
    else:
        facts = {file.name: _fact(snapshot / file.name, file) for file in files}
        size = sum(file.size for file in files if file.name.endswith((".safetensors", ".gguf")))
    notes += (
        [f"loading the model runs code of {source.repo}@{commit}"]
        if any(file.name.endswith(".py") for file in files)
        else []
    )
    return Pulled(
        local_store.write_receipt(
            source, world, Receipt(str(folder), commit, size, facts, licence=listing.licence)
        ),
        downloaded,
        tuple(notes),
    )


def _damaged(
    source: Source, world: World, progress: Progress, files: list[RemoteFile]
) -> list[RemoteFile]:
    """The cached files whose checksums are wrong.

    A file that the receipt records as checked, and that has not changed since, is not read again.
    """
    repo = cache.repo_folder(world, source.repo)
    receipt = local_store.raw_receipt(source, world)
    known = (
        {name: fact for name, fact in receipt.files.items() if name not in receipt.damaged}
        if receipt
        else {}
    )
    paths = {file.name: cache.stored(repo, file) or cache.blob(repo, file) for file in files}
    unread = [file for file in files if known.get(file.name) != _fact(paths[file.name], file)]
    if not unread:
        return []
    progress.start("checking files in the cache", None)
    try:
        return [file for file in unread if not cache.is_intact(paths[file.name], file)]
    finally:
        progress.done()


def _fact(path: Path, file: RemoteFile) -> Fact:
    """The published checksum of a file, and its current modification time."""
    return Fact(
        file.size,
        file.etag if file.large else "",
        "" if file.large else file.etag,
        local_store.time_of(path),
    )


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def read_object(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises IntegrityError for anything else."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(table, dict):
        raise IntegrityError(f"{name} is not a JSON object")
    return table
