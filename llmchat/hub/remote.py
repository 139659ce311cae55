"""Checkpoints from the Hugging Face Hub, in the cache that all of its tools share.

huggingface_hub knows the protocol, the tokens and the cache's layout. The partly loaded file is ours: the library throws it away when a
process ends, and a download of hours must go on where it stopped, whatever stopped it.
"""

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from llmchat.errors import IntegrityError, LlmchatError, Mismatch, ModelNotFound, NetworkError, NotAuthorised
from llmchat.hub import places
from llmchat.hub.convert import has_only_pickles, pickles_to_folder
from llmchat.hub.types import Progress, Pulled, Receipt
from llmchat.presets.types import FileFact, Source
from llmchat.settings import World

# Bytes written at a time. The library's 10 MB make the bar jump on a slow line, and are what a cut connection loses.
_STEP = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BASE_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.*",
    "vocab.*", "merges.txt", "spiece.model", "sentencepiece*.model",
)  # fmt: skip
_BASE_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
_BASE_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


class _Remote(Struct, frozen=True):
    """A file of a repo: its name in the cache is its ETag, which is the sha256 of large files and git's blob id of small ones."""

    name: str
    size: int
    etag: str
    large: bool


def pull_repo(source: Source, world: World, progress: Progress) -> Pulled:
    """Download what is missing of a repo, check it, convert pickles, and leave a receipt."""
    receipt = places.read_receipt(source, world)
    if receipt and (_COMMIT.fullmatch(source.revision) or offline(world)):
        return Pulled(places.to_checkpoint(source, receipt), 0, ())
    if offline(world):
        raise NetworkError(
            f"offline mode is on, and {source} is not on this machine", "leave --offline and HF_HUB_OFFLINE out to download it"
        )
    try:
        with _explained(source, world):
            info = _api(world).model_info(source.repo, revision=source.revision or None, files_metadata=True)
    except NetworkError as error:
        if receipt:
            return Pulled(places.to_checkpoint(source, receipt), 0, (f"already here; not checked for news: {error.message}",))
        raise
    if receipt and receipt.revision == info.sha:
        return Pulled(places.to_checkpoint(source, receipt), 0, ())
    return _download(source, world, progress, str(info.sha), _choose(source, _files(info)))


def _download(source: Source, world: World, progress: Progress, commit: str, files: list[_Remote]) -> Pulled:
    repo = hub_cache(world) / f"models--{source.repo.replace('/', '--')}"
    missing = [file for file in files if not _has_blob(repo, file)]
    places.need_room(repo, sum(file.size - _partial_size(repo, file) for file in missing))
    downloaded = sum(_fetch(source, world, progress, repo, commit, file) for file in missing)
    snapshot = repo / "snapshots" / commit
    for file in files:
        _link(repo, snapshot, file)
    _write_ref(repo, source.revision or "main", commit)
    notes = [f"{downloaded / 1e6:,.1f} MB downloaded"] if downloaded else ["all files were here"]
    folder = snapshot
    adapter = (snapshot / "adapter_config.json").exists()
    if has_only_pickles(snapshot, adapter):
        folder = places.models(world) / places.key(source)
        progress.start("converting to safetensors", None)
        with places.fresh_folder(folder) as fresh:
            notes.append(pickles_to_folder(snapshot, fresh, adapter))
        progress.done()
        size, facts = places.describe(folder)
    else:
        facts = {file.name: FileFact(file.size, file.etag if file.large else "") for file in files}
        size = sum(file.size for file in files if file.name.endswith(".safetensors"))
    return Pulled(places.write_receipt(source, world, Receipt(str(folder), commit, size, facts)), downloaded, tuple(notes))


def _files(info: Any) -> list[_Remote]:
    files = []
    for sibling in info.siblings or []:
        path = PurePosixPath(sibling.rfilename)
        if path.is_absolute() or ".." in path.parts or "\\" in sibling.rfilename:
            raise IntegrityError(f"the repo names a file `{sibling.rfilename}` outside its folder; nothing was downloaded")
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if not re.fullmatch(r"[0-9a-f]{40,64}", etag or ""):
            raise IntegrityError(f"the server gives no checksum for {sibling.rfilename}; nothing was downloaded")
        files.append(_Remote(sibling.rfilename, sibling.size or 0, etag, bool(sibling.lfs)))
    return files


def _choose(source: Source, files: list[_Remote]) -> list[_Remote]:
    """The files a checkpoint needs: safetensors, or pickles where there are none; never code."""
    names = {file.name for file in files}
    if source.files:
        lost = sorted(set(source.files) - names)
        if lost:
            raise ModelNotFound(f"{source} has no file {lost[0]}")
        return [file for file in files if file.name in source.files]
    if "adapter_config.json" in names and "config.json" not in names:
        weights = "adapter_model.safetensors" if "adapter_model.safetensors" in names else "adapter_model.bin"
        patterns: tuple[str, ...] = ("adapter_config.json", weights)
    else:
        safe = any(fnmatch.fnmatch(name, "model*.safetensors") for name in names)
        patterns = (*_BASE_FILES, *(_BASE_WEIGHTS if safe else _BASE_PICKLES))
    chosen = [file for file in files if any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)]
    if not any(file.name.endswith((".safetensors", ".bin")) for file in chosen):
        raise Mismatch(f"{source} has no weights that llmchat can read", "it needs safetensors or pytorch_model.bin files")
    return chosen


def _fetch(source: Source, world: World, progress: Progress, repo: Path, commit: str, file: _Remote) -> int:
    """Download one file into the cache's blobs, going on with what an earlier try left; returns the bytes that were fetched."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = _partial(repo, file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    begun = _partial_size(repo, file)
    progress.start(file.name, file.size)
    progress.advance(begun)
    url = hf_hub_url(source.repo, file.name, revision=commit, endpoint=_endpoint(world))
    try:
        with _explained(source, world), partial.open("ab") as target:
            http_get(
                url,
                target,
                resume_size=begun,
                headers=build_hf_headers(token=_token(world)),
                expected_size=file.size,
                tqdm_class=_bar_class(progress),
            )
    finally:
        progress.done()
    if not _is_intact(partial, file):
        partial.unlink()
        raise IntegrityError(
            f"{file.name} of {source} arrived damaged and was thrown away", "pull again; if it stays so, the server's copy is damaged"
        )
    partial.replace(repo / "blobs" / file.etag)
    return file.size - begun


def verify_small(path: Path, etag: str) -> bool:
    """Whether a file has this git blob id."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == etag


def _is_intact(path: Path, file: _Remote) -> bool:
    return path.stat().st_size == file.size and (places.sha256(path) == file.etag if file.large else verify_small(path, file.etag))


def _has_blob(repo: Path, file: _Remote) -> bool:
    blob = repo / "blobs" / file.etag
    return blob.exists() and blob.stat().st_size == file.size


def _partial(repo: Path, file: _Remote) -> Path:
    return repo / "blobs" / f"{file.etag}.llmchat.incomplete"


def _partial_size(repo: Path, file: _Remote) -> int:
    path = _partial(repo, file)
    size = path.stat().st_size if path.exists() else 0
    if size > file.size:
        path.unlink()
        return 0
    return size


def _link(repo: Path, snapshot: Path, file: _Remote) -> None:
    """snapshots/COMMIT/NAME → blobs/ETAG, as the Hub's own tools lay it out."""
    pointer = snapshot / file.name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if not pointer.exists():
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(os.path.relpath(repo / "blobs" / file.etag, pointer.parent))


def _write_ref(repo: Path, revision: str, commit: str) -> None:
    if not _COMMIT.fullmatch(revision):
        path = repo / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


def hub_cache(world: World) -> Path:
    """The shared Hub cache, found as huggingface_hub finds it."""
    env = world.env
    if env.get("HF_HUB_CACHE"):
        return Path(env["HF_HUB_CACHE"]).expanduser()
    return _hub_home(world) / "hub"


def _hub_home(world: World) -> Path:
    env = world.env
    caches = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path(env.get("HOME", "~")).expanduser() / ".cache"
    return Path(env["HF_HOME"]).expanduser() if env.get("HF_HOME") else caches / "huggingface"


def offline(world: World) -> bool:
    return world.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint(world: World) -> str:
    return world.env.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _token(world: World) -> str | bool:
    """HF_TOKEN, or the token that `hf auth login` stored; False sends none."""
    if world.env.get("HF_TOKEN"):
        return world.env["HF_TOKEN"].strip()
    path = Path(world.env["HF_TOKEN_PATH"]) if world.env.get("HF_TOKEN_PATH") else _hub_home(world) / "token"
    return (path.read_text().strip() or False) if path.exists() else False


def _api(world: World) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import logging

    constants.DOWNLOAD_CHUNK_SIZE = _STEP
    # Its notes on retries would break into our progress line.
    logging.set_verbosity_error()
    return HfApi(endpoint=_endpoint(world), token=_token(world))


@contextmanager
def _explained(source: Source, world: World) -> Iterator[None]:
    """Turn the library's errors into lines that say what to do. A gated repo is also 'not found' to the library, so it goes first."""
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]
    again = "pull again: it goes on where it stopped"
    try:
        yield
    except errors.GatedRepoError as error:
        raise NotAuthorised(
            f"{source.repo} is gated", f"accept its licence at {_endpoint(world)}/{source.repo}, then `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{source.repo} has no revision `{source.revision}`") from error
    except errors.RepositoryNotFoundError as error:
        if _token(world) or _status(error) == 404:
            raise ModelNotFound(
                f"there is no repo {source.repo} at {_endpoint(world)}", "check the name; a private one needs `hf auth login`"
            ) from error
        raise NotAuthorised(f"{source.repo} is private, or does not exist", "`hf auth login`, or set HF_TOKEN, if it is yours") from error
    except errors.HfHubHTTPError as error:
        raise _http_error(source, world, error, again) from error
    except transport as error:
        raise NetworkError(f"{_endpoint(world)} cannot be reached: {_kind(error)}", again) from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise NetworkError(f"the connection to {_endpoint(world)} was cut", again) from error
        if isinstance(error, ConnectionError):
            raise NetworkError(f"{_endpoint(world)} cannot be reached: {_kind(error)}", again) from error
        raise


def _http_error(source: Source, world: World, error: Any, again: str) -> LlmchatError:
    status = _status(error)
    if status in (401, 403):
        return NotAuthorised(
            f"{_endpoint(world)} refuses access to {source.repo} (HTTP {status})",
            "`hf auth login`, or set HF_TOKEN to a token that may read it",
        )
    if status == 404:
        return ModelNotFound(f"{source} is not complete on {_endpoint(world)} (HTTP 404)")
    return NetworkError(f"{_endpoint(world)} answers with HTTP {status}", "too many requests; wait a little" if status == 429 else again)


def _status(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _kind(error: BaseException) -> str:
    """The cause in words, without the address, which may hold a secret."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower().removesuffix(" error")


def _bar_class(progress: Progress) -> Any:
    """A class that takes tqdm's place and passes its steps on."""

    class Steps:
        def __init__(self, *arguments: Any, **options: Any):
            pass

        def __enter__(self) -> "Steps":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, count: float = 1) -> None:
            progress.advance(int(count))

        def close(self) -> None:
            pass

    return Steps
