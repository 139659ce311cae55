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


class Entry(Struct, frozen=True):
    """Who takes part. label: how it is told from the others; memory: bytes it will need; asked: what is measured in each round; first: it can
    tell when its first token is there; task: told it on the first line of its stdin."""

    label: str
    command: tuple[str, ...]
    memory: int = 0
    asked: tuple[str, ...] = ("decode", "prefill")
    first: bool = False
    task: str = ""


class Failed(LlmchatError):
    """A contender that could not be measured."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1):
        super().__init__(message, hint)
        self.exit_code = exit_code


class Contender:
    """A process that has loaded what it measures. load_s: from its start until it was ready."""

    def __init__(self, entry: Entry, env: Mapping[str, str]):
        self.entry = entry
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the contender)
        self._started = time.perf_counter()
        # In a session of its own: Ctrl-C is for the program that asks, which then ends this one.
        self._process = subprocess.Popen(
            entry.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(env),
            text=True,
            start_new_session=True,
        )
        try:
            if entry.task:
                self._send(entry.task)
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
        """Raises Failed where it cannot be measured, or the process is gone."""
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
            raise Failed(said["error"], said["hint"], said["exit_code"])
        return said

    def _gone(self) -> Failed:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return Failed(f"its process ended with code {code}{f': {lines[-1]}' if lines else ''}")


@contextmanager
def ready(
    entries: Sequence[Entry],
    env: Mapping[str, str],
    failed: Callable[[str, Failed], None],
    about: Callable[[str], None],
) -> Iterator[list[Contender]]:
    """These contenders, loaded one after another, until the block ends; `failed` hears of those that could not be, `about` who is loaded."""
    contenders: list[Contender] = []
    try:
        for entry in entries:
            about(f"{entry.label}: load")
            try:
                contenders.append(Contender(entry, env))
            except Failed as error:
                failed(entry.label, error)
        yield contenders
    finally:
        for contender in contenders:
            contender.close()


class Scores:
    """What was measured so far: label → measure → its runs."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[Any]]] = {}
        self.failures: dict[str, Failed] = {}

    def add(self, label: str, what: str, result: Any) -> None:
        self.runs.setdefault(label, {}).setdefault(what, []).append(result)

    def fail(self, label: str, error: Failed) -> None:
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


def compete(
    contenders: Sequence[Contender],
    rounds: int,
    scores: Scores,
    about: Callable[[str], None],
    warm_s: float = 0.0,
) -> None:
    """Everyone measured once a round. `about` hears what is measured next. warm_s: work for so long before, where the machine takes its time to wake
    (a virtual one, whose memory was put away)."""
    left = list(contenders)
    for number in range(rounds):
        for contender in list(left):
            label = contender.entry.label
            try:
                awake = time.perf_counter() + warm_s
                while "decode" in contender.entry.asked and time.perf_counter() < awake:
                    contender.ask("warm")
                for what in contender.entry.asked:
                    about(f"{label}: {what}, round {number + 1} of {rounds}")
                    scores.add(label, what, contender.ask(what))
            except Failed as error:
                scores.fail(label, error)
                left.remove(contender)


def batches(entries: Sequence[Entry], room: int) -> list[list[Entry]]:
    """Entries that are in memory together, in order: as many as fit into `room` bytes, and at least one."""
    found: list[list[Entry]] = []
    for entry in entries:
        if found and sum(one.memory for one in found[-1]) + entry.memory <= room:
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


def python_module(name: str, *arguments: str) -> tuple[str, ...]:
    return python("-m", name, *arguments)


def python_file(python: str, file: Path, *arguments: str) -> tuple[str, ...]:
    return (python, str(file), *arguments)
