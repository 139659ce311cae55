"""`llmchat bench`: how fast this machine runs a model, how near that is to what its memory can give, and how other programs do on the same weights.

64 tokens are decoded after a short prompt and a prompt of 541 is read (both of the default model's tokens), greedily, one stream, in processes
of their own. Nothing here decides how the engine works.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from llmchat.bench import machine as facts
from llmchat.bench.cost import read_per_token
from llmchat.bench.interleave import (
    Competitor,
    CompetitorProcess,
    MeasurementFailed,
    Measurements,
    batches,
    measure_in_turn,
    python_module,
    started,
)
from llmchat.bench.peer_protocol import DECODE
from llmchat.bench.peers import Peers
from llmchat.bench.report import Benchmark, Row
from llmchat.errors import UsageError
from llmchat.hub import inspect_folder
from llmchat.hub.machine import this_machine
from llmchat.memory_estimate import BYTES, needed, weights
from llmchat.models.loading import tokenizer
from llmchat.models.locate import Model, locate, title
from llmchat.models.opener import preset_of
from llmchat.progress import StepProgress
from llmchat.settings import World

__all__ = ["Benchmark", "Plan", "Row", "measure", "plan"]

MEMORY = "memory"
# The model's tokens that are held on average while DECODE are made.
_CONTEXT = 4 + DECODE // 2


class Plan(Struct, frozen=True):
    """Who is measured. processes: with their rows, still empty; skipped: who is not, and why."""

    model: str
    device: str
    room: int
    competitors: tuple[tuple[Competitor, Row], ...]
    skipped: tuple[str, ...]
    machine: dict[str, Any]
    versions: dict[str, str]


def plan(
    given: Mapping[str, Any], kinds: Sequence[str], world: World, peers: Peers | None = None
) -> Plan:
    """Without `kinds`: every kind of weights that fits, the model's own first. Raises what opening the model would raise; loads nothing."""
    # Bare texts are measured: a model that has no prompt format can be as well.
    flags = {"format": "chatml"} | {
        name: value for name, value in given.items() if value is not None
    }
    wrong = next((kind for kind in kinds if kind not in BYTES), None)
    if wrong:
        raise UsageError(f"--weights cannot be {wrong}", f"{', '.join(BYTES)} can be measured")
    model = locate(preset_of(world, **flags), world)
    here = this_machine(world)
    device = facts.used_device(str(flags.get("device") or "auto"), here, world.env)
    room = facts.room(device, here)
    ours, skipped = _ours(model, flags, kinds, room)
    found = facts.versions()
    if peers:
        if model.preset.engine != "transformers":
            raise UsageError(
                f"--compare is for checkpoints that llmchat runs itself, not for the engine `{model.preset.engine}`"
            )
        theirs, absent, more = peers.competitors(model, device, room, tokenizer(model))
        ours, skipped, found = [*ours, *theirs], [*skipped, *absent], found | more
    return Plan(
        title(model.preset),
        device,
        room,
        tuple(ours),
        tuple(skipped),
        facts.facts(device, here),
        found,
    )


def measure(plan: Plan, rounds: int, world: World, *, quiet: bool = False) -> Benchmark:
    """Everyone in turn, `rounds` times, then once more from a fresh start. Ctrl-C ends it and keeps what was measured.

    Raises the error of the model's first row where none of its rows could be measured.
    """
    measurements, competitors = Measurements(), [competitor for competitor, _ in plan.competitors]
    limit = Competitor(
        MEMORY,
        python_module("llmchat.bench.worker", MEMORY, json.dumps({"device": plan.device})),
        0,
        ("bandwidth",),
    )
    grouped = batches(competitors, plan.room)
    on_step = _Steps(
        world,
        quiet,
        sum(1 + len(batch) + rounds * (1 + 2 * len(batch)) for batch in grouped) + len(competitors),
    )
    report = Benchmark(
        plan.model,
        plan.machine,
        datetime.date.fromtimestamp(world.now()).isoformat(),
        plan.versions,
        rounds,
        0,
        DECODE,
        [row for _, row in plan.competitors],
        [*plan.skipped],
    )
    try:
        for batch in grouped:
            with started([limit, *batch], world.env, measurements.fail, on_step) as processes:
                measure_in_turn(processes, rounds, measurements, on_step)
        for competitor in competitors:
            if competitor.label not in measurements.failures:
                on_step(f"{competitor.label}: start")
                _start_again(competitor, world.env, measurements)
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        on_step.clear()
    _fill(report, plan, measurements)
    return report


class _Steps:
    """How far a benchmark is, on stderr: called with what begins."""

    def __init__(self, world: World, quiet: bool, total: int):
        self._progress = StepProgress(world, total, quiet=quiet)
        self._progress.begin("bench", total)
        self._running = False

    def __call__(self, what: str) -> None:
        if self._running:
            self._progress.done()
        self._running = True
        self._progress.started(what)

    def clear(self) -> None:
        self._progress.clear()


def _ours(
    model: Model, flags: dict[str, Any], kinds: Sequence[str], room: int
) -> tuple[list[tuple[Competitor, Row]], list[str]]:
    if model.preset.engine != "transformers" or model.base is None:
        row = Row(f"llmchat {model.preset.engine}", model.preset.engine, ours=True)
        return [(_competitor(row, flags, 0), row)], []
    here = inspect_folder(model.base)
    own = model.preset.weights
    fitting = [
        kind
        for kind in sorted(BYTES, key=lambda kind: kind != own)
        if needed(here.shapes, kind) <= room
    ]
    found = []
    for kind in kinds or fitting:
        read = int(read_per_token(here.shapes, here.config, kind, _CONTEXT))
        row = Row(
            f"llmchat {kind}",
            kind,
            ours=True,
            weight_bytes=weights(here.shapes, kind),
            bytes_per_token=read or None,
        )
        found.append((_competitor(row, flags | {"weights": kind}, needed(here.shapes, kind)), row))
    absent = [
        f"llmchat {kind}: it needs {needed(here.shapes, kind) / 1e9:.1f} GB, {room / 1e9:.1f} GB are free"
        for kind in BYTES
        if kind not in fitting
    ]
    return found, [] if kinds else absent


def _competitor(row: Row, flags: dict[str, Any], memory: int) -> Competitor:
    return Competitor(
        row.engine,
        python_module("llmchat.bench.worker", "engine", json.dumps(flags)),
        memory,
        first=True,
    )


def _start_again(
    competitor: Competitor, env: Mapping[str, str], measurements: Measurements
) -> None:
    """From a fresh process: what its files cost to open shows, and what it holds at most."""
    process = None
    try:
        process = CompetitorProcess(competitor, env)
        measurements.add(competitor.label, "load", process.load_s)
        if competitor.first:
            process.ask("first")
            measurements.add(competitor.label, "first", process.age)
        for what in competitor.asked:
            process.ask(what)
        measurements.add(competitor.label, "peak", process.ask("peak"))
    except MeasurementFailed as error:
        measurements.fail(competitor.label, error)
    finally:
        if process:
            process.close()


def _fill(report: Benchmark, plan: Plan, measurements: Measurements) -> None:
    rate = measurements.rate(MEMORY, "bandwidth")
    report.machine = plan.machine | {"read_bytes_per_second": rate}
    if MEMORY in measurements.failures:
        report.skipped.append(f"the memory's speed: {measurements.failures[MEMORY].message}")
    for competitor, row in plan.competitors:
        row.decode_tps, row.prefill_tps = (
            measurements.rate(competitor.label, "decode"),
            measurements.rate(competitor.label, "prefill"),
        )
        row.load_s, row.first_token_s, row.peak_bytes = (
            measurements.last(competitor.label, what) for what in ("load", "first", "peak")
        )
        row.runs = {
            f"{what}_tps": measurements.rates(competitor.label, what) for what in competitor.asked
        }
        if rate and row.decode_tps and row.bytes_per_token:
            row.bandwidth_share = row.decode_tps * row.bytes_per_token / rate
        if competitor.label in measurements.failures:
            row.error = measurements.failures[competitor.label].message
            report.skipped.append(f"{competitor.label}: {row.error}")
    report.prompt_tokens = next(
        (
            int(found["tokens"])
            for competitor, _ in plan.competitors
            if (found := measurements.last(competitor.label, "prefill"))
        ),
        0,
    )
    own = [
        (measurements.failures.get(competitor.label), row)
        for competitor, row in plan.competitors
        if row.ours
    ]
    if all(failure and row.decode_tps is None for failure, row in own) and own[0][0]:
        raise own[0][0]
