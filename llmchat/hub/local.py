"""Find checkpoints on this machine: folders are used in place, GGUF files are unpacked once."""

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from llmchat.engines.checkpoint_files import PACKED_DATA
from llmchat.errors import Mismatch, ModelNotFound
from llmchat.gguf_file import parts_of
from llmchat.hub import local_store
from llmchat.hub.base_tokenizer import fetch_tokenizer
from llmchat.hub.convert import gguf_to_folder, has_only_pickles, pickles_to_folder
from llmchat.hub.gguf_folder import is_known, size_of_weights, write_folder
from llmchat.hub.gguf_header import write_facts
from llmchat.hub.integrity import combined_error, damaged_files
from llmchat.hub.pulled_gguf import canonical, gguf_here
from llmchat.hub.stores import STORES
from llmchat.hub.types import Checkpoint, Pulled, Receipt
from llmchat.output.progress import NoProgress, Progress
from llmchat.presets.types import FileFact, Source
from llmchat.settings import World

_CONFIG_AND_TOKENIZER = 100_000_000


def find(source: Source, world: World) -> Checkpoint:
    """The checkpoint of a pulled source. Raises ModelNotFound when it is missing or incomplete."""
    if source.kind == "path":
        return find_path(source, world)
    source = canonical(source, world, cached=True)
    if source.is_gguf:
        return _as_named(source, find_path(gguf_here(source, world), world), world)
    receipt = local_store.read_receipt(source, world)
    if receipt is None:
        raise ModelNotFound(f"{source} is not on this machine")
    return local_store.to_checkpoint(source, receipt)


def _as_named(source: Source, found: Checkpoint, world: World) -> Checkpoint:
    """What was found for a source's GGUF file, as a checkpoint of the source."""
    receipt = local_store.raw_receipt(source, world) if source.kind == "hub" else None
    revision, size = (receipt.revision, receipt.size) if receipt else ("", found.size)
    return replace(found, source=source, revision=revision, size=size, file=Path(found.source.repo))


def find_intact(
    source: Source, world: World, look: Callable[[Source, World], Checkpoint] = find
) -> Checkpoint:
    """The checkpoint of a source, with changed files checked. look: finds it.

    Raises ModelNotFound as `find` does, IntegrityError where a file is damaged.
    """
    found = look(source, world)
    receipt = receipt_here(source, world)
    if receipt and (wrong := damaged_files(source, world, receipt)):
        raise combined_error(wrong)
    return found


def find_path(source: Source, world: World) -> Checkpoint:
    """The folder itself, or what a pull converted it to. Raises ModelNotFound before that."""
    path = _existing(source)
    if _usable(path):
        files = [*path.glob("*.safetensors"), *path.glob(PACKED_DATA)]
        return Checkpoint(path, source, "", sum(file.stat().st_size for file in files))
    receipt = local_store.read_receipt(_stamped(source, path), world)
    if receipt is None:
        as_it_is = "; --engine gguf needs no unpacking" if path.is_file() else ""
        raise ModelNotFound(
            f"{path.name} is not unpacked yet", f"`llmchat pull {source.repo}` unpacks it{as_it_is}"
        )
    return local_store.to_checkpoint(source, receipt)


def unpack_quickly(source: Source, world: World) -> bool:
    """Write config and tokenizer of a GGUF file whose weights stay where they are: in a second.

    Returns whether that was possible.
    """
    path = _existing(source)
    if not path.is_file() or not is_known(path):
        return False
    _unpack(source, path, world)
    return True


def receipt_here(source: Source, world: World) -> Receipt | None:
    """The receipt of a source, in whatever state its files are.

    None for a user's own folder, and for the store of another program.
    """
    if source.kind in STORES:
        return None
    if source.kind != "path":
        return local_store.raw_receipt(canonical(source, world), world)
    path = _existing(source)
    return None if _usable(path) else local_store.raw_receipt(_stamped(source, path), world)


def pull_stored(source: Source, world: World, progress: Progress) -> Pulled:
    """Prepare a GGUF file where it is: for our engine where it has a plan, else for llama.cpp."""
    place = gguf_here(source, world)
    if not is_known(Path(place.repo)):
        return Pulled(find_gguf(source, world), 0, ())
    prepared = pull_path(place, world, progress)
    return replace(prepared, checkpoint=_as_named(source, prepared.checkpoint, world))


def pull_path(source: Source, world: World, progress: Progress) -> Pulled:
    path = _existing(source)
    try:
        found, receipt = find_path(source, world), receipt_here(source, world)
        if receipt is None or not damaged_files(source, world, receipt):
            return Pulled(found, 0, ())
    except ModelNotFound:
        pass
    local_store.need_room(local_store.models(world), _room_for(path))
    progress.start(f"unpacking {path.name}", None)
    try:
        note = _unpack(source, path, world, progress)[1]
    finally:
        progress.done()
    return Pulled(find_path(source, world), 0, (note,))


def _unpack(
    source: Source, path: Path, world: World, progress: Progress | None = None
) -> tuple[Receipt, str]:
    """Make the folder of a GGUF file or of pickles, with its receipt; returns a note too.

    progress: that of a pull, which may fetch a tokenizer.
    """

    def fetch(target: Path) -> str:
        return fetch_tokenizer(path, world, progress or NoProgress(), target)

    stamped = _stamped(source, path)
    folder = local_store.models(world) / local_store.key(stamped)
    with local_store.fresh_folder(folder, private=True) as fresh:
        note = (
            write_folder(parts_of(path), fresh, fetch if progress else None)
            or gguf_to_folder(path, fresh)
            if path.is_file()
            else pickles_to_folder(path, fresh, _is_adapter(path))
        )
    size, facts = local_store.describe(folder)
    receipt = Receipt(str(folder), "", size_of_weights(folder) or size, facts)
    local_store.write_receipt(stamped, world, receipt)
    return receipt, note


def _room_for(path: Path) -> int:
    """Bytes that unpacking takes: dequantised weights have up to four times those of the file."""
    if not path.is_file():
        return sum(file.stat().st_size for file in path.glob("*.bin"))
    return _CONFIG_AND_TOKENIZER if is_known(path) else 4 * path.stat().st_size


def find_gguf(source: Source, world: World) -> Checkpoint:
    """What llama.cpp needs to know about a `.gguf` file, read once from its header."""
    if source.kind != "path":
        source = canonical(source, world, cached=True)
        return _as_named(source, find_gguf(gguf_here(source, world), world), world)
    path = _existing(source)
    if not path.is_file():
        raise Mismatch(
            f"{path} is a folder; the engine `gguf` runs a .gguf file",
            "leave --engine out for a checkpoint folder",
        )
    folder = world.cache / "gguf" / local_store.key(_stamped(source, path))
    if not folder.exists():
        with local_store.fresh_folder(folder, private=True) as fresh:
            write_facts(path, fresh)
    return Checkpoint(folder, source, "", path.stat().st_size, path)


def _existing(source: Source) -> Path:
    path = Path(source.repo)
    if not path.exists():
        raise ModelNotFound(f"there is no folder or file {path}")
    if path.is_file() and path.suffix != ".gguf":
        raise Mismatch(
            f"{path.name} is not a model",
            "a model is a checkpoint folder, a .gguf file, a preset or a Hub repo",
        )
    if path.is_dir() and not (path / "config.json").exists() and not _is_adapter(path):
        raise Mismatch(
            f"{path} is not a checkpoint: it has neither config.json nor adapter_config.json"
        )
    return path


def _usable(path: Path) -> bool:
    return path.is_dir() and not has_only_pickles(path, _is_adapter(path))


def _is_adapter(path: Path) -> bool:
    return (path / "adapter_config.json").exists() and not (path / "config.json").exists()


def _stamped(source: Source, path: Path) -> Source:
    """The source with size and time of its files, so that a changed file is unpacked again."""
    files = parts_of(path) if path.is_file() else sorted(path.glob("*.bin"))
    return Source(
        "path",
        source.repo,
        ",".join(f"{file.stat().st_size}-{file.stat().st_mtime_ns}" for file in files),
        files={path.name: FileFact()},
    )
