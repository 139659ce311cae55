"""The shared Hub cache, in the layout that all of the Hub's tools read.

models--ORG--NAME/blobs/ETAG holds a file once, snapshots/COMMIT/NAME points at it, refs/BRANCH
holds a commit. Partly downloaded files have a suffix of our own.
"""

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from llmchat.errors import IntegrityError
from llmchat.hub import local_store
from llmchat.output.terminal_text import excerpt
from llmchat.settings import World

COMMIT = re.compile(r"[0-9a-f]{40}")
_PARTIAL = ".llmchat.incomplete"


class RemoteFile(Struct, frozen=True):
    """A file of a repo.

    etag: its name in the cache: the sha256 of a large file, git's blob id of a small one.
    """

    name: str
    size: int
    etag: str
    large: bool


def hub_cache(world: World) -> Path:
    """The shared Hub cache, found as huggingface_hub finds it."""
    env = world.env
    return (
        Path(env["HF_HUB_CACHE"]).expanduser()
        if env.get("HF_HUB_CACHE")
        else hub_home(world) / "hub"
    )


def hub_home(world: World) -> Path:
    env = world.env
    caches = (
        Path(env["XDG_CACHE_HOME"])
        if env.get("XDG_CACHE_HOME")
        else Path(env.get("HOME", "~")).expanduser() / ".cache"
    )
    return Path(env["HF_HOME"]).expanduser() if env.get("HF_HOME") else caches / "huggingface"


def repo_folder(world: World, repo: str) -> Path:
    return hub_cache(world) / f"models--{repo.replace('/', '--')}"


def checked_name(name: str) -> str:
    """Return a name that stays inside its folder on every system; else raise IntegrityError."""
    parts = re.split(r"[/\\]", name)
    printable = name.isprintable() and "\\" not in name and not re.match(r"[A-Za-z]:", name)
    printable = printable and all(len(part.encode()) < 256 for part in parts)
    if not printable or not all(parts) or ".." in parts or "." in parts or name.startswith("~"):
        raise IntegrityError(
            f"the repo names a file {excerpt(name)!r} outside its folder; nothing was downloaded"
        )
    return name


def blob(repo: Path, file: RemoteFile) -> Path:
    return repo / "blobs" / file.etag


def stored(repo: Path, file: RemoteFile) -> Path | None:
    """The path of a cached file with this name and size.

    It is a blob or, on a file system without links, a file in a snapshot.
    """
    inside = (
        sorted((repo / "snapshots").glob(f"*/{glob.escape(file.name)}"))
        if (repo / "snapshots").is_dir()
        else []
    )
    for path in (blob(repo, file), *(path for path in inside if not path.is_symlink())):
        if path.is_file() and path.stat().st_size == file.size:
            return path
    return None


def partial(repo: Path, file: RemoteFile) -> Path:
    return repo / "blobs" / f"{file.etag}{_PARTIAL}"


def partial_size(repo: Path, file: RemoteFile) -> int:
    """Bytes that an earlier attempt left; a remainder longer than the file counts as 0."""
    try:
        size = partial(repo, file).stat().st_size
    except OSError:
        return 0
    return size if size <= file.size else 0


def is_intact(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the published size and checksum."""
    if path.stat().st_size != file.size:
        return False
    return file.etag == (local_store.sha256(path) if file.large else local_store.git_id(path))


def git_id(content: bytes) -> str:
    """Git's blob id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def link(repo: Path, snapshot: Path, file: RemoteFile, *, alone: bool = True) -> None:
    """Make snapshots/COMMIT/NAME point at blobs/ETAG; a correct file that exists already stays.

    alone: whether no other file of the snapshot has the same content. Raises IntegrityError where a
    folder on the way leads out of the snapshot.
    """
    pointer = snapshot / file.name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if not pointer.parent.resolve().is_relative_to(snapshot.resolve()):
        raise IntegrityError(
            f"{file.name} would be written outside the cache", f"remove {snapshot} and pull again"
        )
    there = pointer.is_file() and not pointer.is_symlink() and is_intact(pointer, file)
    if not there and not _leads_to(pointer, blob(repo, file)):
        _place(repo, pointer, file, alone)


def _place(repo: Path, pointer: Path, file: RemoteFile, alone: bool) -> None:
    """Put a file at its place in one step: a symbolic link, a hard link or, else, a copy."""
    content = stored(repo, file)
    if content is None:
        raise IntegrityError(f"{file.name} is missing", "pull again")
    fresh = pointer.with_name(
        f".{hashlib.sha256(file.name.encode()).hexdigest()[:16]}.{os.getpid()}"
    )
    fresh.unlink(missing_ok=True)
    try:
        if not _linked(content, blob(repo, file), fresh):
            if alone and content == blob(repo, file):
                content.replace(pointer)
                return
            shutil.copyfile(content, fresh)
        fresh.replace(pointer)
    finally:
        fresh.unlink(missing_ok=True)


def _linked(content: Path, own: Path, fresh: Path) -> bool:
    with suppress(OSError):
        if content == own:
            os.symlink(os.path.relpath(own, fresh.parent), fresh)
            return True
    with suppress(OSError):
        os.link(content, fresh)
        return True
    return False


def write_ref(repo: Path, revision: str, commit: str) -> None:
    if not COMMIT.fullmatch(revision):
        path = repo / "refs" / checked_name(revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


def snapshot_here(repo: Path, revision: str) -> Path | None:
    """The folder of a revision's files; None where there is none."""
    try:
        commit = revision if COMMIT.fullmatch(revision) else (repo / "refs" / revision).read_text()
    except (OSError, ValueError):
        return None
    folder = repo / "snapshots" / commit.strip()
    return folder if COMMIT.fullmatch(commit.strip()) and folder.is_dir() else None


def removable_files(repo: Path, keep: Iterable[str]) -> list[Path]:
    """The files to delete when only the snapshots of the commits `keep` stay.

    Those are other snapshots, refs to them, blobs that only they use, and partial downloads.
    Without a commit to keep, that is the whole folder.
    """
    kept = {commit for commit in keep if (repo / "snapshots" / commit).is_dir()}
    files = [path for path in repo.rglob("*") if path.is_symlink() or path.is_file()]
    if not kept:
        return files
    spared = {
        path
        for path in files
        if path.is_relative_to(repo / "snapshots")
        and path.relative_to(repo / "snapshots").parts[0] in kept
    }
    spared |= {path.resolve() for path in spared}
    spared |= {
        path for path in files if path.is_relative_to(repo / "refs") and path.read_text() in kept
    }
    return [
        path
        for path in files
        if path not in spared and (path.is_symlink() or path.resolve() not in spared)
    ]


def delete(repo: Path, files: Iterable[Path]) -> None:
    """Remove files, and the folders that become empty."""
    for path in files:
        path.unlink(missing_ok=True)
    for folder in sorted(
        (path for path in repo.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True
    ):
        if not any(folder.iterdir()):
            folder.rmdir()
    if repo.is_dir() and not any(repo.iterdir()):
        shutil.rmtree(repo)


def size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())


def _leads_to(pointer: Path, target: Path) -> bool:
    try:
        return pointer.is_symlink() and pointer.resolve(strict=True) == target.resolve()
    except OSError:
        return False
