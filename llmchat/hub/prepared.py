"""Prepared copies of models: find, make, check and remove them. An engine decides their content.

A copy is made once, in a folder that appears when it is complete. It belongs to the files it was
made from: another revision of the base, another adapter or a changed file make another copy.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from llmchat.engines.checkpoint_files import PACKED_TABLE
from llmchat.errors import IntegrityError, LlmchatError
from llmchat.hub import local_store, locks
from llmchat.hub.local import find
from llmchat.hub.types import Checkpoint, Fact
from llmchat.output.progress import Progress
from llmchat.presets.types import Source
from llmchat.settings import World

# The version of the copies' format; a copy of another version is made again.
VERSION = 1
_RECORD = "prepared.json"
# Files that a copy takes from its checkpoint, besides weights and config.
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*", "USE_POLICY*")
_NOT_COPIED = ("config.json", "adapter_config.json", "*.index.json", PACKED_TABLE, _RECORD)
# Files of a user's own folder whose change makes a new copy necessary.
_STAMPED = ("*.safetensors", "config.json", "adapter_config.json")


class CopySource(Struct, frozen=True):
    """A base or an adapter at one state. stamp: sizes and times of files without a revision."""

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
    """Everything that decides the content of a copy. scale: the strength of the last adapter.
    weights: int4, where they are not int8 or the numbers of the base's file.
    """

    base: CopySource
    adapters: tuple[CopySource, ...] = ()
    scale: float = 1.0
    version: int = VERSION
    weights: Literal["int4"] | UnsetType = UNSET

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        adapters: Sequence[Checkpoint] = (),
        scale: float = 1.0,
        *,
        int4: bool = False,
    ) -> "CopyRecipe":
        return cls(
            CopySource.of(base), tuple(map(CopySource.of, adapters)), scale if adapters else 1.0,
            weights="int4" if int4 else UNSET,
        )  # fmt: skip

    @property
    def parts(self) -> tuple[CopySource, ...]:
        return (self.base, *self.adapters)

    def __str__(self) -> str:
        return " + ".join(str(part.source) for part in self.parts)


class PreparedCopy(Struct, frozen=True):
    """A copy on this machine, with every file of it."""

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
    """Writes the content of a copy. size: its bytes, known in advance."""

    size: int

    def write(self, folder: Path, advance: Callable[[int], None]) -> None: ...


def find_copy(recipe: CopyRecipe, world: World) -> Path | None:
    """The folder of a copy, if it is complete; files whose time has changed are checked once."""
    copy = _read(_folder_of(recipe, world))
    return copy.folder if copy and copy.recipe == recipe and _is_as_written(copy) else None


def make_copy(
    recipe: CopyRecipe,
    base: Checkpoint,
    start: Callable[[], Writing],
    world: World,
    progress: Progress,
) -> Path:
    """Return the copy, making it if needed; wait for another process that makes the same one.

    Raises OutOfResources where the disk has no room, OSError where it cannot be written, and what
    `start` raises.
    """
    folder = _folder_of(recipe, world)
    waiting = f"another llmchat is preparing {recipe}; waiting for it"
    with locks.held(
        f"prepared--{folder.name}", world, lambda: progress.note(waiting), progress.note
    ):
        if found := find_copy(recipe, world):
            return found
        writing = start()
        copied = files_beside_weights(base.path)
        _remove_stale(recipe, world)
        local_store.need_room(
            folder.parent, writing.size + sum(path.stat().st_size for path in copied)
        )
        progress.start(f"preparing {recipe}", writing.size)
        try:
            with local_store.fresh_folder(folder, private=base.source.kind == "path") as fresh:
                for path in copied:
                    shutil.copyfile(path, fresh / path.name)
                writing.write(fresh, progress.advance)
                record = _Record(recipe, local_store.describe(fresh)[1])
                (fresh / _RECORD).write_bytes(msgspec.json.encode(record))
        finally:
            progress.done()
    return folder


def copies(world: World) -> list[PreparedCopy]:
    """Every complete copy."""
    return [copy for folder in _folders(world, "[!.]*") if (copy := _read(folder))]


def check_copy(copy: PreparedCopy) -> None:
    """Check every file of a copy; remove a damaged copy and raise IntegrityError."""
    try:
        for name, fact in copy.files.items():
            local_store.check_file(copy.folder / name, fact, name)
    except IntegrityError as error:
        drop(copy.folder)
        raise IntegrityError(
            f"in the prepared copy of {copy.recipe}, {error.message}",
            "the copy was removed; the next use makes it again",
        ) from error


def useless_copies(
    world: World, gone: Collection[Source] = (), unwanted: Collection[CopyRecipe] = ()
) -> list[Path]:
    """Folders of copies that nothing can use once the sources `gone` are removed.

    Those are copies of these sources, of changed files and of the recipes `unwanted`, damaged
    copies, and the rest of interrupted attempts.
    """
    useful = {
        copy.folder
        for copy in copies(world)
        if copy.recipe not in unwanted
        and all(_is_unchanged(part, gone, world) for part in copy.recipe.parts)
    }
    return [folder for folder in _folders(world, "[!.]*") if folder not in useful] + _left_over(
        world
    )


def drop_made_of(source: Source, world: World) -> None:
    """Remove every copy made from a source: one of its files was damaged, perhaps already then."""
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


def _is_as_written(copy: PreparedCopy) -> bool:
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


def _folder_of(recipe: CopyRecipe, world: World) -> Path:
    digest = hashlib.sha256(msgspec.json.encode(recipe)).hexdigest()[:12]
    return _folder(world) / f"{local_store.readable_key(recipe.base.source)}-{digest}"


def files_beside_weights(folder: Path) -> list[Path]:
    """The files that a copy takes from its checkpoint: tokenizer, template, settings, licence."""
    found = {path for pattern in _COPIED for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not any(path.match(pattern) for pattern in _NOT_COPIED))


def _is_unchanged(part: CopySource, gone: Collection[Source], world: World) -> bool:
    try:
        return part.source not in gone and CopySource.of(find(part.source, world)) == part
    except LlmchatError:
        return False


def _remove_stale(recipe: CopyRecipe, world: World) -> None:
    """Remove the rest of interrupted attempts, and copies of earlier states of the base."""
    old = [
        copy for copy in copies(world) if copy.recipe.base.source.repo == recipe.base.source.repo
    ]
    stale = [
        copy.folder
        for copy in old
        if copy.recipe.version != VERSION
        or not all(_is_unchanged(part, (), world) for part in copy.recipe.parts)
    ]
    own = _folders(world, f".{_folder_of(recipe, world).name}-*")
    for folder in stale + own + _left_over(world):
        drop(folder)


def _left_over(world: World) -> list[Path]:
    """Incomplete folders that no process is writing."""
    return [
        folder
        for folder in _folders(world, ".*")
        if locks.is_free(f"prepared--{folder.name[1:].rpartition('-')[0]}", world)
    ]
