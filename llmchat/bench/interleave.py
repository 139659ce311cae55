"""Contenders, each loaded in a process of its own, measured in turn: while one works the others sleep, and a machine whose speed drifts is unfair
to none."""

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
    """Who takes part. label: how it is told from the others; memory: bytes it will need; asked: what is measured in each round; first: it can
    tell when its first token is there; task: told it on the first line of its stdin."""

    label: str
    command: tuple[str, ...]
    memory: int = 0
    asked: tuple[str, ...] = ("decode", "prefill")
    first: bool = False
    task: str = ""


class MeasurementFailed(LlmchatError):
    """A process that could not be measured."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1):
        super().__init__(message, hint)
        self.exit_code = exit_code


class CompetitorProcess:
    """A process that has loaded what it measures. load_s: from its start until it was ready."""

    def __init__(self, competitor: Competitor, env: Mapping[str, str]):
        self.competitor = competitor
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._started = time.perf_counter()
        # In a session of its own: Ctrl-C is for the program that asks, which then ends this one.
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
        """Seconds since the process was started."""
        return time.perf_counter() - self._started

    def ask(self, what: str) -> Any:
        """Raises MeasurementFailed where it cannot be measured, or the process is gone."""
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
            raise self._gone() from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise MeasurementFailed(said["error"], said["hint"], said["exit_code"])
        return said

    def _gone(self) -> MeasurementFailed:
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
    failed: Callable[[str, MeasurementFailed], None],
    on_step: Callable[[str], None],
) -> Iterator[list[CompetitorProcess]]:
    """These processes, loaded one after another, until the block ends; `failed` hears of those that could not be, `about` who is loaded."""
    processes: list[CompetitorProcess] = []
    try:
        for competitor in competitors:
            on_step(f"{competitor.label}: load")
            try:
                processes.append(CompetitorProcess(competitor, env))
            except MeasurementFailed as error:
                failed(competitor.label, error)
        yield processes
    finally:
        for process in processes:
            process.close()


class Measurements:
    """What was measured so far: label → measure → its runs."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[Any]]] = {}
        self.failures: dict[str, MeasurementFailed] = {}

    def add(self, label: str, what: str, result: Any) -> None:
        self.runs.setdefault(label, {}).setdefault(what, []).append(result)

    def fail(self, label: str, error: MeasurementFailed) -> None:
        self.failures[label] = error

    def rates(self, label: str, what: str) -> list[float]:
        """Tokens (or bytes) a second, of each run."""
        return [
            run["tps"] if isinstance(run, dict) else run
            for run in self.runs.get(label, {}).get(what, [])
        ]

    def rate(self, label: str, what: str) -> float | None:
        runs = self.rates(label, what)
        return median(runs) if runs else None

    def last(self, label: str, what: str) -> Any:
        """The last result, None where there is none."""
        return self.runs.get(label, {}).get(what, [None])[-1]


def measure_in_turn(
    processes: Sequence[CompetitorProcess],
    rounds: int,
    measurements: Measurements,
    on_step: Callable[[str], None],
    warm_s: float = 0.0,
) -> None:
    """Everyone measured once a round. `about` hears what is measured next. warm_s: work for so long before, where the machine takes its time to wake
    (a virtual one, whose memory was put away)."""
    left = list(processes)
    for number in range(rounds):
        for process in list(left):
            label = process.competitor.label
            try:
                awake = time.perf_counter() + warm_s
                while "decode" in process.competitor.asked and time.perf_counter() < awake:
                    process.ask("warm")
                for what in process.competitor.asked:
                    on_step(f"{label}: {what}, round {number + 1} of {rounds}")
                    measurements.add(label, what, process.ask(what))
            except MeasurementFailed as error:
                measurements.fail(label, error)
                left.remove(process)


def batches(competitors: Sequence[Competitor], room: int) -> list[list[Competitor]]:
    """Entries that are in memory together, in order: as many as fit into `room` bytes, and at least one."""
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
