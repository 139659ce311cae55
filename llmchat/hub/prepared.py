"""Prepared copies of models: where they lie, what they were made from, whether they are whole. What is in them is the engine's business.

A copy is made once, in a folder that appears when it is complete, and belongs to the files it was made from: with another revision of the base,
another adapter or a changed file it is another copy.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import IntegrityError, LlmchatError
from llmchat.hub import local_store, locks
from llmchat.hub.local import find
from llmchat.hub.types import Checkpoint, Fact
from llmchat.presets.types import Source
from llmchat.progress import Progress
from llmchat.settings import World

# Of the format of the copies; one of another version is made again.
VERSION = 1
_RECORD = "prepared.json"
# What a checkpoint is beside its weights and its config.
_BESIDE = ("*.json", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*", "USE_POLICY*")
_LEFT = ("config.json", "adapter_config.json", "*.index.json", _RECORD)
# What of a user's own folder decides about the weights.
_STAMPED = ("*.safetensors", "config.json", "adapter_config.json")


class CopySource(Struct, frozen=True):
    """A base or an adapter as it was. stamp: of files that have no revision, their sizes and times."""

    source: Source
    revision: str
    stamp: str = ""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CopySource":
        files = sorted({path for pattern in _STAMPED for path in checkpoint.path.glob(pattern)})
        facts = ",".join(
            f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files
        )
        return cls(checkpoint.source, checkpoint.revision, "" if checkpoint.revision else facts)


class CopyRecipe(Struct, frozen=True):
    """All that decides what a copy holds: the base, the adapters in order, the strength of the last one."""

    base: CopySource
    adapters: tuple[CopySource, ...] = ()
    scale: float = 1.0
    version: int = VERSION

    @classmethod
    def of(
        cls, base: Checkpoint, adapters: Sequence[Checkpoint] = (), scale: float = 1.0
    ) -> "CopyRecipe":
        return cls(
            CopySource.of(base), tuple(map(CopySource.of, adapters)), scale if adapters else 1.0
        )

    @property
    def parts(self) -> tuple[CopySource, ...]:
        return (self.base, *self.adapters)

    def __str__(self) -> str:
        return " + ".join(str(part.source) for part in self.parts)


class PreparedCopy(Struct, frozen=True):
    """A copy on this machine and every file of it."""

    folder: Path
    recipe: CopyRecipe
    files: dict[str, Fact]

    @property
    def size(self) -> int:
        return size_of([self.folder])


class _Record(Struct, frozen=True):
    recipe: CopyRecipe
    files: dict[str, Fact]


class Writing(Protocol):
    """A copy that is about to be written. size: its bytes, known before."""

    size: int

    def write(self, folder: Path, advance: Callable[[int], None]) -> None: ...


def find_copy(recipe: CopyRecipe, world: World) -> Path | None:
    """The folder of a copy, when all its files are there as they were written; one whose time has changed is read again once."""
    copy = _read(_place(recipe, world))
    return copy.folder if copy and copy.recipe == recipe and _as_written(copy) else None


def make_copy(
    recipe: CopyRecipe,
    base: Checkpoint,
    start: Callable[[], Writing],
    world: World,
    progress: Progress,
) -> Path:
    """The copy, written now unless it is there; another process that makes the same one is waited for.

    Raises OutOfResources where the disk has no room, OSError where it cannot be written, and what `start` raises.
    """
    folder = _place(recipe, world)
    waiting = f"another llmchat is preparing {recipe}; waiting for it"
    with locks.held(
        f"prepared--{folder.name}", world, lambda: progress.note(waiting), progress.note
    ):
        if found := find_copy(recipe, world):
            return found
        writing = start()
        beside = _beside(base.path)
        _sweep(recipe, world)
        local_store.need_room(
            folder.parent, writing.size + sum(path.stat().st_size for path in beside)
        )
        progress.start(f"preparing {recipe}", writing.size)
        try:
            with local_store.fresh_folder(folder, private=base.source.kind == "path") as fresh:
                for path in beside:
                    shutil.copyfile(path, fresh / path.name)
                writing.write(fresh, progress.advance)
                record = _Record(recipe, local_store.describe(fresh)[1])
                (fresh / _RECORD).write_bytes(msgspec.json.encode(record))
        finally:
            progress.done()
    return folder


def copies(world: World) -> list[PreparedCopy]:
    """Every copy that is whole."""
    return [copy for folder in _folders(world, "[!.]*") if (copy := _read(folder))]


def check_copy(copy: PreparedCopy) -> None:
    """Read all of a copy again. One that is damaged is removed: it costs less to make than to explain."""
    try:
        for name, fact in copy.files.items():
            local_store.check_file(copy.folder / name, fact, name)
    except IntegrityError as error:
        drop(copy.folder)
        raise IntegrityError(
            f"of the prepared copy of {copy.recipe}, {error.message}",
            "it was removed; the next use makes it again",
        ) from error


def useless_copies(
    world: World, gone: Collection[Source] = (), unwanted: Collection[CopyRecipe] = ()
) -> list[Path]:
    """Folders that nothing can use any more when the sources `gone` are: copies of them, of files that have changed since, of the recipes
    `unwanted`, damaged ones, and what interrupted tries have left."""
    useful = {
        copy.folder
        for copy in copies(world)
        if copy.recipe not in unwanted
        and all(_is_as_it_was(part, gone, world) for part in copy.recipe.parts)
    }
    return [folder for folder in _folders(world, "[!.]*") if folder not in useful] + _left_over(
        world
    )


def drop_made_of(source: Source, world: World) -> None:
    """Remove the copies that were made from a source of which a file was damaged: nobody knows whether it was so then."""
    for copy in copies(world):
        if any(part.source == source for part in copy.recipe.parts):
            drop(copy.folder)


def drop(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def size_of(folders: Iterable[Path]) -> int:
    return sum(
        path.stat().st_size for folder in folders for path in folder.iterdir() if path.is_file()
    )


def _read(folder: Path) -> PreparedCopy | None:
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
        whole = all(
            (folder / name).stat().st_size == fact.size for name, fact in record.files.items()
        )
    except (OSError, msgspec.DecodeError):
        return None
    return PreparedCopy(folder, record.recipe, record.files) if whole else None


def _as_written(copy: PreparedCopy) -> bool:
    times = {name: local_store.time_of(copy.folder / name) for name in copy.files}
    changed = [name for name, fact in copy.files.items() if fact.time != times[name]]
    try:
        for name in changed:
            local_store.check_file(copy.folder / name, copy.files[name], name)
    except (IntegrityError, OSError):
        return False
    if changed:
        files = {name: replace(fact, time=times[name]) for name, fact in copy.files.items()}
        with suppress(OSError):
            (copy.folder / _RECORD).write_bytes(msgspec.json.encode(_Record(copy.recipe, files)))
    return True


def _folder(world: World) -> Path:
    return world.cache / "prepared"


def _folders(world: World, pattern: str) -> list[Path]:
    return sorted(path for path in _folder(world).glob(pattern) if path.is_dir())


def _place(recipe: CopyRecipe, world: World) -> Path:
    digest = hashlib.sha256(msgspec.json.encode(recipe)).hexdigest()[:12]
    return (
        _folder(world) / f"{recipe.base.source.repo.strip('/').replace('/', '--')[-60:]}-{digest}"
    )


def _beside(folder: Path) -> list[Path]:
    """The files of a checkpoint that belong to its copy as well: tokenizer, chat template, generation settings, licence."""
    found = {path for pattern in _BESIDE for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not any(path.match(pattern) for pattern in _LEFT))


def _is_as_it_was(part: CopySource, gone: Collection[Source], world: World) -> bool:
    try:
        return part.source not in gone and CopySource.of(find(part.source, world)) == part
    except LlmchatError:
        return False


def _sweep(recipe: CopyRecipe, world: World) -> None:
    """Before another copy is written: remove what interrupted tries have left, and copies of what this base was before."""
    old = [
        copy for copy in copies(world) if copy.recipe.base.source.repo == recipe.base.source.repo
    ]
    stale = [
        copy.folder
        for copy in old
        if copy.recipe.version != VERSION
        or not all(_is_as_it_was(part, (), world) for part in copy.recipe.parts)
    ]
    own = _folders(world, f".{_place(recipe, world).name}-*")
    for folder in stale + own + _left_over(world):
        drop(folder)


def _left_over(world: World) -> list[Path]:
    """Unfinished folders that no process is writing."""
    return [
        folder
        for folder in _folders(world, ".*")
        if locks.is_free(f"prepared--{folder.name[1:].rpartition('-')[0]}", world)
    ]
