"""Measure how fast this machine runs a model, next to its memory bandwidth and to other programs.

Decodes 64 tokens after a short prompt and prefills a long one (541 tokens of the default model),
greedily, one stream, each competitor in a process of its own. Nothing here configures the engine.
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
from llmchat.bench.machine import memory_missing
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
from llmchat.output.progress import StepProgress
from llmchat.settings import World

__all__ = ["Benchmark", "Plan", "Row", "measure", "plan"]

MEMORY = "memory"
# Tokens in the KV cache, on average, while DECODE tokens are written.
_CONTEXT = 4 + DECODE // 2


class Plan(Struct, frozen=True):
    """What will be measured.

    room: bytes available for models; competitors: with their rows, still empty; skipped: what
    will not be measured, and why, one line each.
    """

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
    """Choose the kinds of weights (all that fit, the model's own first) and the peers.

    Loads nothing. Raises what opening the model would raise.
    """
    _check_kinds(kinds)
    # Prompts are plain text, so a model without a prompt format can be measured too.
    flags = {"format": "chatml"} | {
        name: value for name, value in given.items() if value is not None
    }
    model = locate(preset_of(world, **flags), world)
    here = this_machine(world)
    device = facts.used_device(str(flags.get("device") or "auto"), here, world.env)
    room = facts.room(device, here)
    competitors, skipped = _ours(model, flags, kinds, room)
    versions = facts.versions()
    if peers:
        _check_comparable(model)
        theirs, absent, more = peers.competitors(model, device, room, tokenizer(model))
        competitors += theirs
        skipped += absent
        versions |= more
    return Plan(
        title(model.preset), device, room, tuple(competitors), tuple(skipped),
        facts.facts(device, here), versions,
    )  # fmt: skip


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in BYTES:
            raise UsageError(f"--weights cannot be {kind}", f"{', '.join(BYTES)} can be measured")


def _check_comparable(model: Model) -> None:
    if model.preset.engine != "transformers":
        raise UsageError(
            f"--compare does not support the engine `{model.preset.engine}`",
            "it compares checkpoints that llmchat runs itself",
        )


def measure(plan: Plan, rounds: int, world: World, *, quiet: bool = False) -> Benchmark:
    """Measure every competitor in turn, `rounds` times, then once more in a fresh process.

    Ctrl-C ends the run and keeps what was measured. Raises the error of the model's first row if
    none of its rows could be measured.
    """
    measurements = Measurements()
    competitors = [competitor for competitor, _ in plan.competitors]
    grouped = batches(competitors, plan.room)
    on_step = _Steps(world, quiet, _count_steps(grouped, rounds))
    report = _empty_report(plan, rounds, world)
    bandwidth = _memory_bandwidth(plan.device)
    try:
        for batch in grouped:
            with started([bandwidth, *batch], world.env, measurements.fail, on_step) as processes:
                measure_in_turn(processes, rounds, measurements, on_step)
        for competitor in competitors:
            if competitor.label not in measurements.failures:
                on_step(f"{competitor.label}: start")
                _measure_start(competitor, world.env, measurements)
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        on_step.clear()
    _fill(report, plan, measurements)
    return report


def _count_steps(grouped: Sequence[Sequence[Competitor]], rounds: int) -> int:
    """A batch loads its competitors and the bandwidth test, then measures two things in each."""
    in_turn = sum(1 + len(batch) + rounds * (1 + 2 * len(batch)) for batch in grouped)
    return in_turn + sum(map(len, grouped))


def _empty_report(plan: Plan, rounds: int, world: World) -> Benchmark:
    return Benchmark(
        model=plan.model,
        machine=plan.machine,
        date=datetime.date.fromtimestamp(world.now()).isoformat(),
        versions=plan.versions,
        rounds=rounds,
        prompt_tokens=0,
        decode_tokens=DECODE,
        rows=[row for _, row in plan.competitors],
        skipped=[*plan.skipped],
    )


def _memory_bandwidth(device: str) -> Competitor:
    flags = json.dumps({"device": device})
    command = python_module("llmchat.bench.worker", MEMORY, flags)
    return Competitor(MEMORY, command, measures=("bandwidth",))


class _Steps:
    """The progress of a benchmark on stderr; called with each step that begins."""

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
    own_first = sorted(BYTES, key=lambda kind: kind != model.preset.weights)
    fitting = [kind for kind in own_first if needed(here.shapes, kind, here.config) <= room]
    found = []
    for kind in kinds or fitting:
        row = Row(
            f"llmchat {kind}",
            kind,
            ours=True,
            weight_bytes=weights(here.shapes, kind, here.config),
            bytes_per_token=int(read_per_token(here.shapes, here.config, kind, _CONTEXT)) or None,
        )
        found.append(
            (
                _competitor(row, flags | {"weights": kind}, needed(here.shapes, kind, here.config)),
                row,
            )
        )
    absent = [
        f"llmchat {kind}: {memory_missing(needed(here.shapes, kind, here.config), room)}"
        for kind in BYTES
        if kind not in fitting
    ]
    return found, [] if kinds else absent


def _competitor(row: Row, flags: dict[str, Any], memory: int) -> Competitor:
    command = python_module("llmchat.bench.worker", "engine", json.dumps(flags))
    return Competitor(row.engine, command, memory, has_first_token=True)


def _measure_start(
    competitor: Competitor, env: Mapping[str, str], measurements: Measurements
) -> None:
    """Measure in a fresh process the time to load and to the first token, and the peak memory."""
    process = None
    try:
        process = CompetitorProcess(competitor, env)
        measurements.add(competitor.label, "load", process.load_s)
        if competitor.has_first_token:
            process.ask("first")
            measurements.add(competitor.label, "first", process.age)
        if competitor.reports_build:
            measurements.add(competitor.label, "build", process.ask("build"))
        for measure in competitor.measures:
            process.ask(measure)
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
        _fill_row(row, competitor, measurements, rate)
        if row.error:
            report.skipped.append(f"{competitor.label}: {row.error}")
        prefill = measurements.last(competitor.label, "prefill")
        if prefill and not report.prompt_tokens:
            report.prompt_tokens = int(prefill["tokens"])
    if own := next((row for row in report.rows if row.ours), None):
        report.decode_tps, report.prefill_tps = own.decode_tps, own.prefill_tps
    _raise_if_none_measured(plan, measurements)


def _fill_row(
    row: Row, competitor: Competitor, measurements: Measurements, bandwidth: float | None
) -> None:
    label = competitor.label
    row.decode_tps = measurements.rate(label, "decode")
    row.prefill_tps = measurements.rate(label, "prefill")
    row.load_s = measurements.last(label, "load")
    row.first_token_s = measurements.last(label, "first")
    row.peak_bytes = measurements.last(label, "peak")
    row.build = measurements.last(label, "build") or ""
    row.runs = {f"{name}_tps": measurements.rates(label, name) for name in competitor.measures}
    if bandwidth and row.decode_tps and row.bytes_per_token:
        row.bandwidth_share = row.decode_tps * row.bytes_per_token / bandwidth
    if label in measurements.failures:
        row.error = measurements.failures[label].message


def _raise_if_none_measured(plan: Plan, measurements: Measurements) -> None:
    ours = [(competitor, row) for competitor, row in plan.competitors if row.ours]
    failures = [measurements.failures.get(competitor.label) for competitor, _ in ours]
    decoded = any(row.decode_tps is not None for _, row in ours)
    if all(failures) and not decoded and failures[0]:
        raise failures[0]
