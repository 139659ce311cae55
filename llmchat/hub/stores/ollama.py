"""Ollama's store: a manifest names the blobs of a model.

`manifests/HOST/NAMESPACE/NAME/TAG` is JSON with layers; `blobs/sha256-HEX` holds them. Format:
ollama's manifest/manifest.go and types/model/name.go.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.errors import IntegrityError, LlmchatError, Mismatch, ModelNotFound, did_you_mean
from llmchat.hub.stores.types import StoredModel, is_folder
from llmchat.output.terminal_text import excerpt
from llmchat.presets.types import Source
from llmchat.settings import World

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
# The store of the service that ollama's installer makes on Linux.
_OF_SERVICE = Path("/usr/share/ollama/.ollama/models")
_KIND = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LARGEST_MANIFEST, _LARGEST_TEXT = 1_000_000, 1_000_000
_LEFT_OUT = {
    "template": "its Go template: the file's own chat template is used",
    "messages": "its example messages",
    "projector": "its image encoder",
    "draft": "its draft model",
}


class _Layer(Struct):
    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int = 0

    @property
    def kind(self) -> str:
        return self.media_type.removeprefix(_KIND)


class _Manifest(Struct):
    layers: list[_Layer] = []


def find(name: str, world: World) -> StoredModel:
    """The model that ollama calls `name`, as in `ollama run NAME`."""
    parts = _parts(name)
    for root in roots(world):
        manifest = root / "manifests" / Path(*parts)
        if manifest.is_file():
            return _read(root, manifest)
    places = ", ".join(map(str, roots(world))) or "OLLAMA_MODELS, ~/.ollama/models"
    known = [model.source.repo for model in models(world)]
    raise ModelNotFound(
        f"ollama has no model `{excerpt(name)}` on this machine",
        did_you_mean(name, known, "ollama:")
        or f"`llmchat ls --elsewhere` lists the models in {places}",
    )


def models(world: World) -> Iterator[StoredModel]:
    """Every model with a GGUF file; a damaged or foreign one is left out."""
    for root in roots(world):
        for manifest in sorted((root / "manifests").glob("*/*/*/*")):
            try:
                yield _read(root, manifest)
            except (LlmchatError, OSError):
                continue


def roots(world: World) -> list[Path]:
    """The stores on this machine: that of OLLAMA_MODELS, the user's, the service's."""
    given = world.env.get("OLLAMA_MODELS")
    own = world.home / ".ollama" / "models"
    places = [Path(given).expanduser()] if given else [own, _OF_SERVICE]
    return [place for place in places if is_folder(place / "manifests")]


def _parts(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of a name. Raises ModelNotFound for an invalid one."""
    path, _, tag = name.rpartition(":")
    if not path or "/" in tag:
        path, tag = name, ""
    words = path.split("/")
    whole = (*(_HOST, _NAMESPACE)[: 3 - len(words)], *words, tag or _TAG)
    if len(whole) != 4 or not all(re.fullmatch(r"\w[\w.:-]{0,127}", word) for word in whole):
        raise ModelNotFound(
            f"`{excerpt(name)}` is not a name of an ollama model", "it is written NAME or NAME:TAG"
        )
    return whole


def _name(root: Path, manifest: Path) -> str:
    """The name of a manifest's model, as `ollama ls` prints it."""
    host, namespace, model, tag = manifest.relative_to(root / "manifests").parts
    words = [model] if namespace == _NAMESPACE else [namespace, model]
    return "/".join(words if host == _HOST else [host, namespace, model]) + f":{tag}"


def _read(root: Path, manifest: Path) -> StoredModel:
    name = _name(root, manifest)
    layers = _layers(manifest, name)
    weights = layers.get("model", [])
    if len(weights) != 1:
        raise Mismatch(
            f"ollama:{name} is not one GGUF file",
            "ollama runs it on a server, or from safetensors; pull the model from the Hub",
        )
    blob = _blob(root, weights[0], name)
    return StoredModel(
        Source("ollama", name),
        blob,
        blob.stat().st_size,
        tuple(_blob(root, layer, name) for layer in layers.get("adapter", [])),
        "\n".join(_text(root, layer, name) for layer in layers.get("system", [])).strip(),
        _parameters(root, layers.get("params", []), name),
        _first_line(root, layers.get("license", []), name),
        tuple(line for kind, line in _LEFT_OUT.items() if kind in layers),
    )


def _layers(manifest: Path, name: str) -> dict[str, list[_Layer]]:
    """The layers of a manifest by their kind."""
    try:
        content = _bounded(manifest, _LARGEST_MANIFEST)
        found = msgspec.json.decode(content, type=_Manifest)
    except (OSError, ValueError) as error:
        raise _damaged(name, f"{manifest} is not a manifest") from error
    kinds: dict[str, list[_Layer]] = {}
    for layer in found.layers:
        kinds.setdefault(layer.kind, []).append(layer)
    return kinds


def _blob(root: Path, layer: _Layer, name: str) -> Path:
    """The file of a layer, with the size that the manifest names."""
    match = _DIGEST.fullmatch(layer.digest)
    if not match:
        raise _damaged(name, f"a layer has no valid digest: {excerpt(layer.digest)}")
    path = root / "blobs" / f"sha256-{match[1]}"
    if not path.is_file() or (layer.size and path.stat().st_size != layer.size):
        raise _damaged(name, f"{path} is missing or has another size")
    return path


def _text(root: Path, layer: _Layer, name: str) -> str:
    try:
        return _bounded(_blob(root, layer, name), _LARGEST_TEXT).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise _damaged(name, f"its {layer.kind} cannot be read") from error


def _parameters(root: Path, layers: list[_Layer], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in layers:
        try:
            found |= msgspec.json.decode(_text(root, layer, name), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise _damaged(name, "its parameters are not JSON") from error
    return found


def _first_line(root: Path, layers: list[_Layer], name: str) -> str:
    """What a licence calls itself."""
    lines = [line.strip() for layer in layers for line in _text(root, layer, name).splitlines()]
    return excerpt(next(filter(None, lines), ""))


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError("it is too long")
    return content


def _damaged(name: str, what: str) -> IntegrityError:
    return IntegrityError(f"ollama:{name} is damaged: {what}", f"`ollama pull {name}` repairs it")
