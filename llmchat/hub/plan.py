"""Plan a pull from inspections: what is fetched, whether it fits this machine and each other."""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import LlmchatError, Mismatch, OutOfResources
from llmchat.hub.adapters import AdapterFacts, check, shapes_of_config
from llmchat.hub.choices import Choice, choices_in, smaller_variant
from llmchat.hub.headers import Shapes
from llmchat.hub.inspection import Inspection
from llmchat.hub.machine import Disk, Machine
from llmchat.hub.room import RAM, Room
from llmchat.output.formatting import byte_count
from llmchat.presets.types import Preset

_ERRORS: dict[int, type[LlmchatError]] = {6: OutOfResources, 8: Mismatch}


class PlannedPart(Struct, frozen=True):
    """A base or an adapter. Sizes in bytes."""

    role: str
    """`base` or `adapter`."""
    source: str
    """Repo, file or folder."""
    revision: str
    """Commit or version; empty for a path."""
    form: str
    """Format of the files, such as `safetensors`."""
    size: int
    """Bytes of all its files."""
    missing: int
    """Bytes that a pull would fetch."""
    partial: int
    """Bytes that an interrupted pull left."""
    files: int
    """Number of files to fetch."""
    here: bool
    """Whether all of it is on this machine."""
    licence: str = ""
    """Licence that its card names."""
    gated: str = ""
    """How access is granted, for a gated repo."""
    code: tuple[str, ...] = ()
    """Its Python files."""


class Problem(Struct, frozen=True):
    """A reason against a pull."""

    exit_code: int
    """Exit code of a pull that ends with it."""
    line: str
    """The problem, in one line."""
    hint: str = ""
    """The way out."""
    forceable: bool = True
    """Whether --force ignores it."""


class Memory(Struct, frozen=True):
    """Bytes of the loaded model, by kind of weights; {} if unknown."""

    context: int
    """Tokens of context that are counted."""
    kv: int
    """Bytes of the KV cache."""
    total: dict[str, int]
    """Kind of weights → bytes of the loaded model with its KV cache."""


class Plan(Struct, frozen=True):
    """Everything a pull would do, as `pull --dry-run --json` prints it."""

    model: str
    """Name of the model."""
    parts: tuple[PlannedPart, ...]
    """The base, then the adapters."""
    download: int
    """Bytes to fetch."""
    partial: int
    """Bytes of them that are already here."""
    disks: tuple[Disk, ...]
    """Disks that the pull writes to."""
    parameters: float
    """Number of parameters; 0 if unknown."""
    weights: str
    """Kind of weights that would be used."""
    quantised: str
    """Kind of the weights that keep their numbers, such as `GPTQ 4-bit`; empty without any."""
    memory: Memory
    """Memory that the model takes."""
    place: str
    """Where it would run: the machine's memory or a GPU."""
    free: int
    """Free bytes there."""
    verdict: str
    """Whether it fits this machine: `yes`, `no` or `unknown`."""
    adapters: tuple[AdapterFacts, ...]
    """How each adapter matches the base."""
    licence: str
    """Licence of the model."""
    problems: tuple[Problem, ...]
    """Reasons not to pull it."""
    notes: tuple[str, ...]
    """What else to know."""
    instead: tuple[str, ...]
    """Models or options that would fit."""
    choices: tuple[Choice, ...] = ()
    """The variants of a GGUF repo."""

    def enforce(self, *, force: bool = False, memory: bool = True) -> None:
        """Raise the first problem.

        force: the first that --force does not ignore; memory=False: none about memory or disk.
        """
        for problem in self.problems:
            if (force and problem.forceable) or (
                not memory and problem.exit_code == OutOfResources.exit_code
            ):
                continue
            hint = problem.hint or " or ".join(self.instead)
            anyway = "--force pulls it anyway" if problem.forceable else ""
            raise _ERRORS[problem.exit_code](problem.line, "; ".join(filter(None, (hint, anyway))))


def make_plan(
    preset: Preset,
    inspections: Sequence[Inspection],
    disks: tuple[Disk, ...],
    machine: Machine,
    device: str,
    others: Iterable[Preset],
) -> Plan:
    """Plan the pull of a preset.

    inspections: of the base, then of each adapter; none for an engine without files; others:
    presets that may be suggested instead.
    """
    base, *adapters = inspections or [Inspection(preset.base, here=True)]
    shapes = base.shapes or shapes_of_config(base.config)
    problems = [Problem(8, preset.unsupported)] if preset.unsupported else []
    problems += _refused(inspections)
    facts, mismatches = _adapters(base, adapters, shapes)
    problems += mismatches + [problem for disk in disks if (problem := _disk_problem(disk))]
    room = Room.of(preset, base, shapes, machine, device)
    notes = (
        [note for inspection in inspections for note in inspection.notes]
        + _licence_notes(preset, base)
        + _code_notes(inspections)
    )
    if room.refused:
        problems.append(Problem(6, room.refusal))
    elif machine.gpus and device != "cpu" and room.place == RAM:
        notes.append(f"the GPU is too small; --device cpu runs the model in {RAM}")
    elif room.crowded:
        notes.append(
            f"{room.fitting:,} of {room.context:,} tokens of context fit in memory: --context"
            f" {room.fitting}"
        )
    return Plan(
        model=preset.name,
        parts=tuple(
            _part("adapter" if index else "base", inspection)
            for index, inspection in enumerate(inspections)
        ),
        download=sum(inspection.missing for inspection in inspections),
        partial=sum(inspection.partial for inspection in inspections),
        disks=disks,
        parameters=room.parameters,
        weights=preset.weights,
        quantised=room.quantised,
        memory=Memory(
            room.context,
            room.kv(room.context),
            {kind: room.total(kind) for kind in room.kinds} if room.parameters else {},
        ),
        place=room.place,
        free=room.free,
        verdict="no" if problems else "yes" if room.parameters else "unknown",
        adapters=facts,
        licence=preset.licence if preset.licence != "unknown" else base.licence or "unknown",
        problems=tuple(problems),
        notes=tuple(notes),
        instead=tuple(smaller_variant(room, base) or room.alternatives(preset, others))
        if room.refused
        else (),
        choices=choices_in(room, base),
    )


def _adapters(
    base: Inspection, adapters: Sequence[Inspection], shapes: Shapes
) -> tuple[tuple[AdapterFacts, ...], list[Problem]]:
    if base.adapter and not base.config:
        # An adapter that is pulled by itself: its base is unknown.
        base, adapters, shapes = (
            Inspection(replace(base.source, repo=str(base.adapter.get("base_model_name_or_path")))),
            [base],
            {},
        )
    facts: list[AdapterFacts] = []
    problems: list[Problem] = []
    before: list[str] = []
    for inspection in adapters:
        name = inspection.source.repo
        try:
            facts.append(
                check(
                    name,
                    inspection.adapter,
                    inspection.shapes,
                    inspection.weights,
                    base.source.repo,
                    before,
                    shapes,
                )
            )
        except Mismatch as error:
            problems.append(Problem(8, error.message, error.hint))
        before.append(name)
    return tuple(facts), problems


def _refused(inspections: Sequence[Inspection]) -> list[Problem]:
    """Weights that llmchat does not run: whatever --force says, they cannot be loaded."""
    return [
        Problem(8, f"{inspection.source}: {line}", hint, forceable=False)
        for inspection in inspections
        for line, hint in [inspection.quantised.refused]
        if line
    ]


def _disk_problem(disk: Disk) -> Problem | None:
    if disk.needed <= disk.free:
        return None
    return Problem(
        6,
        f"{byte_count(disk.needed)} of disk are needed, {byte_count(disk.free)} are free in"
        f" {disk.folder}",
        "free some space, or set HF_HOME or XDG_CACHE_HOME to a larger disk",
        forceable=False,
    )


def _licence_notes(preset: Preset, base: Inspection) -> list[str]:
    """A note where the preset and the repo name different licences."""
    ours, theirs = (name.casefold().replace("-", " ") for name in (preset.licence, base.licence))
    if not theirs or ours == "unknown" or theirs in ours:
        return []
    return [f"the preset names the licence `{preset.licence}`, {base.source.repo} `{base.licence}`"]


def _code_notes(inspections: Sequence[Inspection]) -> list[str]:
    return [
        f"loading the model runs code of {inspection.source.repo}@{inspection.commit}:"
        f" {', '.join(inspection.code)}"
        for inspection in inspections
        if inspection.code
    ]


def _part(role: str, inspection: Inspection) -> PlannedPart:
    return PlannedPart(
        role,
        str(inspection.source),
        inspection.commit,
        inspection.form,
        inspection.size,
        inspection.missing,
        inspection.partial,
        inspection.files,
        inspection.here,
        inspection.licence,
        inspection.gated,
        inspection.code,
    )
