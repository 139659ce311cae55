"""Measure competitors in turn, each loaded in a process of its own.

While one is measured the others sleep, so that a machine whose speed drifts is fair to all.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from llmchat.errors import LlmchatError
from llmchat.process.programs import python


class Competitor(Struct, frozen=True):
    """What a competitor is and how to start it.

    label: its unique name; memory: bytes it needs; measures: what each round measures;
    has_first_token: whether it can report its first token; reports_build: whether it can report
    what it was built with; task: the first line of its stdin.
    """

    label: str
    command: tuple[str, ...]
    memory: int = 0
    measures: tuple[str, ...] = ("decode", "prefill")
    has_first_token: bool = False
    reports_build: bool = False
    task: str = ""


class MeasurementFailed(LlmchatError):
    """A competitor could not be measured."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1):
        super().__init__(message, hint)
        self.exit_code = exit_code


class CompetitorProcess:
    """A process that has loaded what it measures. load_s: seconds from its start to ready."""

    def __init__(self, competitor: Competitor, env: Mapping[str, str]):
        self.competitor = competitor
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._started = time.perf_counter()
        # In a new session, so that Ctrl-C reaches only the parent, which then ends this one.
        self._process = subprocess.Popen(
            competitor.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(env),
            text=True,
            start_new_session=True,
        )
        try:
            if competitor.task:
                self._send(competitor.task)
            self._receive()
        except BaseException:
            self.close()
            raise
        self.load_s = self.age

    @property
    def age(self) -> float:
        """Seconds since the process started."""
        return time.perf_counter() - self._started

    def ask(self, what: str) -> Any:
        """Measure once. Raises MeasurementFailed if that fails or the process has ended."""
        self._send(what)
        return self._receive()["result"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise MeasurementFailed(reply["error"], reply["hint"], reply["exit_code"])
        return reply

    def _ended(self) -> MeasurementFailed:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return MeasurementFailed(
            f"its process ended with code {code}{f': {lines[-1]}' if lines else ''}"
        )


@contextmanager
def started(
    competitors: Sequence[Competitor],
    env: Mapping[str, str],
    on_failure: Callable[[str, MeasurementFailed], None],
    on_step: Callable[[str], None],
) -> Iterator[list[CompetitorProcess]]:
    """Start competitors one after another, and end them with the block.

    on_failure: called with the label and error of one that could not be started.
    """
    processes: list[CompetitorProcess] = []
    try:
        for competitor in competitors:
            on_step(f"{competitor.label}: load")
            try:
                processes.append(CompetitorProcess(competitor, env))
            except MeasurementFailed as error:
                on_failure(competitor.label, error)
        yield processes
    finally:
        for process in processes:
            process.close()


class Measurements:
    """What was measured so far: by label and measure, one value a run."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[Any]]] = {}
        self.failures: dict[str, MeasurementFailed] = {}

    def add(self, label: str, what: str, result: Any) -> None:
        self.runs.setdefault(label, {}).setdefault(what, []).append(result)

    def fail(self, label: str, error: MeasurementFailed) -> None:
        self.failures[label] = error

    def rates(self, label: str, what: str) -> list[float]:
        """Tokens (or bytes) per second, of each run."""
        return [
            run["tps"] if isinstance(run, dict) else run
            for run in self.runs.get(label, {}).get(what, [])
        ]

    def rate(self, label: str, what: str) -> float | None:
        runs = self.rates(label, what)
        return median(runs) if runs else None

    def last(self, label: str, what: str) -> Any:
        """The last result, or None."""
        return self.runs.get(label, {}).get(what, [None])[-1]


def measure_in_turn(
    processes: Sequence[CompetitorProcess],
    rounds: int,
    measurements: Measurements,
    on_step: Callable[[str], None],
    warm_s: float = 0.0,
) -> None:
    """Measure everyone once a round; one that fails is left out of the further rounds.

    warm_s: seconds of work before each measurement, for machines that wake slowly (a virtual one
    whose memory was evicted).
    """
    left = list(processes)
    for number in range(rounds):
        for process in list(left):
            label = process.competitor.label
            try:
                _warm_up(process, warm_s)
                for measure in process.competitor.measures:
                    on_step(f"{label}: {measure}, round {number + 1} of {rounds}")
                    measurements.add(label, measure, process.ask(measure))
            except MeasurementFailed as error:
                measurements.fail(label, error)
                left.remove(process)


def _warm_up(process: CompetitorProcess, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while "decode" in process.competitor.measures and time.perf_counter() < end:
        process.ask("warm")


def batches(competitors: Sequence[Competitor], room: int) -> list[list[Competitor]]:
    """Group competitors, in order, by what fits into `room` bytes together, at least one."""
    found: list[list[Competitor]] = []
    for competitor in competitors:
        if found and sum(one.memory for one in found[-1]) + competitor.memory <= room:
            found[-1].append(competitor)
        else:
            found.append([competitor])
    return found


def python_module(name: str, *arguments: str) -> tuple[str, ...]:
    return python("-m", name, *arguments)


def python_file(python: str, file: Path, *arguments: str) -> tuple[str, ...]:
    return (python, str(file), *arguments)
