"""llmchat's own cache: receipts, locks, folders that appear at once, checksums, disk space."""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from llmchat.errors import IntegrityError, OutOfResources
from llmchat.hub import locks, unfinished
from llmchat.hub.types import Checkpoint, Fact, Receipt
from llmchat.output.formatting import byte_count
from llmchat.presets.types import FileFact, Source
from llmchat.settings import World

_BLOCK = 1 << 20
_ROOM = "free some space, or set HF_HOME or XDG_CACHE_HOME to a larger disk"


def key(source: Source) -> str:
    """A readable folder name for a source, with a hash of its revision and files."""
    digest = hashlib.sha256(msgspec.json.encode(source)).hexdigest()[:10]
    return f"{readable_key(source)}-{digest}"


def readable_key(source: Source) -> str:
    """The readable part of `key`: the same for every revision."""
    return source.repo.strip("/").replace("/", "--")[-60:]


def models(world: World) -> Path:
    return world.cache / "models"


def read_receipt(source: Source, world: World) -> Receipt | None:
    """The receipt of a complete pull: every file exists with its size. None otherwise."""
    receipt = raw_receipt(source, world)
    return receipt if receipt and is_whole(receipt) else None


def write_receipt(source: Source, world: World, receipt: Receipt) -> Checkpoint:
    path = _receipt_path(source, world)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(replace(receipt, source=source)))
    temporary.replace(path)
    return to_checkpoint(source, receipt)


def forget(source: Source, world: World) -> None:
    _receipt_path(source, world).unlink(missing_ok=True)


def to_checkpoint(source: Source, receipt: Receipt) -> Checkpoint:
    return Checkpoint(Path(receipt.path), source, receipt.revision, receipt.size)


def describe(folder: Path) -> tuple[int, dict[str, Fact]]:
    """Bytes of the weights, and the checksum of every file of a folder."""
    files = {
        path.name: Fact(path.stat().st_size, sha256(path), time=time_of(path))
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    return sum(fact.size for name, fact in files.items() if name.endswith(".safetensors")), files


def check_file(
    path: Path, fact: FileFact | Fact, name: str, hint: str = "`llmchat pull` fetches it again"
) -> None:
    """Raise IntegrityError, with `hint`, when a file is missing or differs from its checksum."""
    found = _size(path)
    if found is None:
        raise IntegrityError(f"{name} is missing", hint)
    if fact.size and found != fact.size:
        raise IntegrityError(f"{name} is {found:,} bytes, it must be {fact.size:,}", hint)
    if fact.sha256 and sha256(path) != fact.sha256:
        raise IntegrityError(f"{name} is damaged: its sha256 is not the published one", hint)
    if isinstance(fact, Fact) and fact.git and git_id(path) != fact.git:
        raise IntegrityError(f"{name} is damaged: its checksum is not the published one", hint)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_id(path: Path) -> str:
    """Git's blob id of a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def time_of(path: Path) -> int:
    """When a file was last changed, in nanoseconds since 1970; -1 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def need_room(folder: Path, count: int, hint: str = _ROOM) -> None:
    """Raise OutOfResources when `count` more bytes do not fit on the disk of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if count > free:
        raise OutOfResources(
            f"{byte_count(count)} are needed, {byte_count(free)} are free in {folder}",
            hint,
        )


@contextmanager
def fresh_folder(target: Path, private: bool = False) -> Iterator[Path]:
    """A folder that appears at `target` when the block succeeds, and not at all otherwise.

    private: readable by its owner alone, for what was made from the user's own files; otherwise the
    umask decides.
    """
    with unfinished.folder(target) as temporary:
        yield temporary
        if not private:
            temporary.chmod(_usual_mode(temporary))
        unfinished.replace(temporary, target)


def _usual_mode(folder: Path) -> int:
    """The mode of a new folder: the umask cannot be read without changing it for all threads."""
    tried = folder / ".mode"
    tried.mkdir()
    mode = tried.stat().st_mode & 0o777
    tried.rmdir()
    return mode


@contextmanager
def lock(
    source: Source, world: World, waiting: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Allow one pull of a repo at a time; a second one calls `waiting` and waits for the first."""
    # Revisions of a repo share their blobs, so they share a lock.
    name = f"hub--{source.repo.replace('/', '--')}" if source.kind == "hub" else key(source)
    with locks.held(
        name,
        world,
        lambda: waiting(f"another llmchat is busy with {source}; waiting for it"),
        waiting,
    ):
        yield


def receipts(world: World) -> list[Receipt]:
    """Every receipt of which all files exist."""
    found = []
    for path in sorted((world.cache / "receipts").glob("*.json")):
        receipt = _decoded(path)
        if receipt and is_whole(receipt):
            found.append(receipt)
    return found


def receipts_of_path(source: Source, world: World) -> list[Receipt]:
    """All receipts of a folder or a file: one for each state in which it was converted."""
    found = [
        receipt for path in (world.cache / "receipts").glob("*.json") if (receipt := _decoded(path))
    ]
    return [
        receipt
        for receipt in found
        if receipt.source
        and receipt.source.kind == "path" == source.kind
        and receipt.source.repo == source.repo
    ]


def receipts_of_repo(source: Source, world: World) -> list[Receipt]:
    """All receipts of a Hub repo: one for each revision, and for each file of a GGUF repo."""
    pattern = f"{glob.escape(readable_key(source))}-*.json"
    found = [_decoded(path) for path in sorted((world.cache / "receipts").glob(pattern))]
    return [
        receipt
        for receipt in found
        if receipt
        and receipt.source
        and (receipt.source.kind, receipt.source.repo) == (source.kind, source.repo)
    ]


def raw_receipt(source: Source, world: World) -> Receipt | None:
    """The receipt of a source, in whatever state its files are."""
    return _decoded(_receipt_path(source, world))


def touch_used(name: str, world: World) -> None:
    """Record that a model is used now. Never fails: a read-only cache must not end a chat."""
    path = _used_path(name, world)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def forget_used(name: str, world: World) -> None:
    with suppress(OSError):
        _used_path(name, world).unlink()


def last_used(name: str, world: World) -> float | None:
    """When a model was last loaded, in seconds since 1970."""
    try:
        return _used_path(name, world).stat().st_mtime
    except OSError:
        return None


def _used_path(name: str, world: World) -> Path:
    return world.cache / "used" / hashlib.sha256(name.encode()).hexdigest()[:20]


def _decoded(path: Path) -> Receipt | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Receipt)
    except (OSError, msgspec.DecodeError):
        return None


def is_whole(receipt: Receipt) -> bool:
    """Whether every file of a pull exists with its size."""
    folder = Path(receipt.path)
    return bool(receipt.files) and all(
        _size(folder / name) == fact.size for name, fact in receipt.files.items()
    )


def _receipt_path(source: Source, world: World) -> Path:
    return world.cache / "receipts" / f"{key(source)}.json"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
