"""Runs a batch: reads lines, answers them, and writes rows."""

import hashlib
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.batches.answering import Task, completed
from llmchat.batches.reading import Line
from llmchat.batches.results import Sink
from llmchat.batches.rows import Row, answered, failed
from llmchat.engines import Finish, Sampling
from llmchat.errors import LlmchatError
from llmchat.evaluate.candidates import with_system
from llmchat.models.open_model import OpenModel
from llmchat.output.formatting import counted, duration
from llmchat.output.progress import StatusLine
from llmchat.reply import build_request
from llmchat.reply_parser import GenerationRequest, ReplyParser
from llmchat.roles import Role
from llmchat.server.answer_forms import bound, form_of
from llmchat.server.choice import Choice
from llmchat.server.request_parsing import chat_settings, sampling_of_choice
from llmchat.settings import World

# Seeds of several answers to one line must differ from those of the next lines.
_SEEDS_A_LINE = 1 << 20
# Lines with errors that are printed.
_MOST_TOLD = 20


class Work(Struct, frozen=True):
    """How lines are answered. answers: for each line. parallel: answers in progress at once.

    seed: of the first line; each has its own, so that a continued run gives the same answers.
    template, role: of the prompts, which decide what they are.
    """

    opened: OpenModel
    sampling: Sampling
    answers: int = 1
    parallel: int = 16
    seed: int = 0
    template: str = ""
    role: Role | None = None

    @property
    def fingerprint(self) -> str:
        """A short hash of what decides the answers, besides the lines."""
        preset = self.opened.preset
        decides = (
            self.opened.made_by, preset.context, preset.system, self.sampling, self.answers,
            self.seed, self.template, *((self.role,) if self.role else ()),
        )  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:12]


class Outcome(Struct):
    """What a run did. rows: written; kept: of earlier runs; errors: both without an answer; tokens:
    of all answers."""

    rows: int = 0
    kept: int = 0
    errors: int = 0
    tokens: int = 0
    seconds: float = 0.0
    interrupted: bool = False


class _Asked:
    """A line whose answers are on their way."""

    def __init__(self, line: Line, answers: int):
        self.line = line
        self.left = answers
        self.choices: list[Choice] = []
        self.error: LlmchatError | None = None


def run(
    work: Work,
    lines: Iterable[Line | None],
    sink: Sink,
    world: World,
    *,
    total: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Answer the lines that have no row yet. lines: None where the next one is not there yet.
    total: how many lines there are, if known.

    Ctrl-C ends it with what is written. Raises errors that the next line would have too.
    """
    return _Run(work, sink, world, total, StatusLine(world, quiet=quiet)).run(lines)


class _Run:
    def __init__(self, work: Work, sink: Sink, world: World, total: int | None, status: StatusLine):
        self._work, self._sink, self._world = work, sink, world
        self._total, self._status = total, status
        self._fingerprint = work.fingerprint
        self._numbers: dict[str, int] = {}
        self._asked: dict[int, _Asked] = {}
        self._outcome = Outcome()
        self._faults = 0
        self._started = time.perf_counter()

    def run(self, lines: Iterable[Line | None]) -> Outcome:
        outcome = self._outcome
        tasks = self._tasks(lines)
        try:
            with closing(completed(self._work.opened.engine, tasks, self._work.parallel)) as done:
                for task in done:
                    self._take(task)
            self._sink.finish(self._numbers)
        except KeyboardInterrupt:
            outcome.interrupted = True
        finally:
            self._status.close()
            outcome.seconds = time.perf_counter() - self._started
        return outcome

    def _tasks(self, lines: Iterable[Line | None]) -> Generator[Task | None]:
        """The answers that are still to be made, in the order of the lines."""
        for line in lines:
            if line is None:
                yield None
                continue
            self._numbers[line.key] = line.number
            if line.key in self._sink.kept:
                self._outcome.kept += 1
                self._outcome.errors += not self._sink.kept[line.key]
                continue
            self._sink.expect(line.number)
            yield from self._tasks_of(line)

    def _tasks_of(self, line: Line) -> Iterator[Task]:
        try:
            if line.ask is None:
                raise LlmchatError(line.error, line.hint)
            generation, count = self._generation(line)
        except LlmchatError as error:
            self._write(line, failed(line, error, self._fingerprint), error)
            return
        asked = _Asked(line, count)
        self._asked[line.number] = asked
        for index in range(count):
            one = replace(generation, sampling=sampling_of_choice(generation.sampling, index))
            opened = self._work.opened
            parser = ReplyParser(opened.preset, one)
            choice = Choice(index, one, parser, opened.engine.count)
            asked.choices.append(choice)
            yield Task(choice, line.number)

    def _generation(self, line: Line) -> tuple[GenerationRequest, int]:
        """What the engine is given for a line, and how often. Raises LlmchatError."""
        opened, ask = self._work.opened, line.ask
        assert ask is not None
        preset, engine, count, tools = opened.preset, opened.engine, self._work.answers, None
        seed = self._work.seed + line.number * _SEEDS_A_LINE
        sampling = replace(self._work.sampling, seed=seed % 2**63)
        if request := ask.request:
            form = form_of(request)
            preset, sampling = chat_settings(request, replace(preset, sampling=sampling))
            sampling = bound(sampling, form, engine)
            count, tools = request.n or count, form.tools
        conversation = with_system(ask.conversation, preset)
        generation = build_request(
            conversation, preset, engine, engine.context, sampling, tools=tools
        )
        return generation, count

    def _take(self, task: Task) -> None:
        """An answer is complete; with the last one of its line, the row is written."""
        asked = self._asked[task.line]
        asked.left -= 1
        asked.error = asked.error or task.error
        self._outcome.tokens += _tokens(task.choice.finish)
        if asked.left:
            return
        del self._asked[task.line]
        self._write(asked.line, self._row(asked), asked.error)

    def _row(self, asked: _Asked) -> Row:
        if asked.error:
            return failed(asked.line, asked.error, self._fingerprint)
        model, created = self._work.opened.preset.name, int(self._world.now())
        return answered(asked.line, asked.choices, model, created, self._fingerprint)

    def _write(self, line: Line, row: Row, error: LlmchatError | None) -> None:
        self._sink.write(line.number, row)
        outcome = self._outcome
        outcome.rows += 1
        if error:
            outcome.errors += 1
            self._faults += 1
            self._tell(line.number, error)
        self._show()

    def _tell(self, number: int, error: LlmchatError) -> None:
        if self._faults <= _MOST_TOLD:
            hint = f"; {error.hint}" if error.hint else ""
            self._status.print(f"line {number}: {error.message}{hint}")
        elif self._faults == _MOST_TOLD + 1:
            self._status.print("more lines have errors; their rows say which")

    def _show(self) -> None:
        outcome, total = self._outcome, self._total
        seconds = time.perf_counter() - self._started
        done = outcome.kept + outcome.rows
        parts = [f"{done:,} of {total:,}" if total else counted(done, "line")]
        if outcome.tokens:
            parts.append(f"{outcome.tokens / seconds:,.0f} tokens/s")
        if total and outcome.rows:
            left = (total - done) * seconds / outcome.rows
            parts.append(f"about {duration(left)} left")
        self._status.show("  ".join(parts), done, total or done)


def _tokens(finish: Finish | None) -> int:
    return finish.reply_tokens if finish else 0


def summary(outcome: Outcome) -> str:
    """One line about a run, for people."""
    made = counted(outcome.rows, "row")
    parts = [f"{made} in {duration(outcome.seconds)}"]
    if outcome.tokens:
        rate = outcome.tokens / outcome.seconds
        parts.append(f"{outcome.tokens:,} tokens, {rate:,.0f} tokens/s")
    if outcome.kept:
        parts.append(f"{outcome.kept:,} kept from before")
    if outcome.errors:
        parts.append(counted(outcome.errors, "line") + " without an answer")
    return "; ".join(parts)
