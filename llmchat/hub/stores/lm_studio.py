"""LM Studio's folder of models: PUBLISHER/REPO/FILE.gguf."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from llmchat.errors import ModelNotFound, did_you_mean
from llmchat.hub.cache import RemoteFile
from llmchat.hub.gguf_repo import variants, whole_name
from llmchat.hub.stores.types import StoredModel, is_folder
from llmchat.output.terminal_text import excerpt
from llmchat.presets.types import Source
from llmchat.settings import World

_HOMES = (".lmstudio", ".cache/lm-studio")
_POINTER = ".lmstudio-home-pointer"


class _Settings(Struct):
    downloads: str = msgspec.field(name="downloadsFolder", default="")


def find(name: str, world: World) -> StoredModel:
    """The model `publisher/repo/FILE`, with or without `.gguf`, or the only one of a repo."""
    known = list(models(world))
    named = [model for model in known if _is_called(model.source.repo, name)]
    if len(named) == 1:
        return named[0]
    names = [model.source.repo for model in known]
    several = ", ".join(f"lmstudio:{model.source.repo}" for model in named)
    raise ModelNotFound(
        f"LM Studio has {'several models' if named else 'no model'} `{excerpt(name)}` on this"
        " machine",
        f"name one: {several}"
        if named
        else did_you_mean(name, names, "lmstudio:") or "`llmchat ls --elsewhere` lists its models",
    )


def models(world: World) -> Iterator[StoredModel]:
    """Every model; files that accompany one are left out."""
    for root in roots(world):
        for repo in sorted(path for path in root.glob("*/*") if path.is_dir()):
            yield from _of_repo(root, repo)


def roots(world: World) -> list[Path]:
    """The folders of models on this machine."""
    homes = [world.home / place for place in _HOMES]
    if pointed := _read_text(world.home / _POINTER):
        homes.insert(0, Path(pointed.strip()))
    places = [place for one in homes for place in (_downloads(one), one / "models") if place]
    return [place for place in dict.fromkeys(places) if is_folder(place)]


def _of_repo(root: Path, repo: Path) -> Iterator[StoredModel]:
    files = [
        RemoteFile(path.name, path.stat().st_size, "", large=True)
        for path in repo.glob("*.gguf")
        if path.is_file()
    ]
    for variant in variants(files):
        first = repo / variant.files[0].name
        name = f"{repo.relative_to(root)}/{whole_name(first.name).removesuffix('.gguf')}"
        eyes = ("its image encoder",) if any(repo.glob("*mmproj*.gguf")) else ()
        yield StoredModel(Source("lmstudio", name), first, variant.size, left_out=eyes)


def _is_called(known: str, name: str) -> bool:
    wanted = whole_name(f"{name.removesuffix('.gguf')}.gguf").removesuffix(".gguf").casefold()
    return wanted in (known.casefold(), known.rpartition("/")[0].casefold())


def _downloads(home: Path) -> Path | None:
    """The folder that the user chose in LM Studio's settings."""
    try:
        found = msgspec.json.decode(_read_text(home / "settings.json"), type=_Settings)
    except msgspec.DecodeError:
        return None
    return Path(found.downloads) if found.downloads else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")[:100_000]
    except (OSError, ValueError):
        return ""
