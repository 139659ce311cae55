"""Answers many requests at once: over the slots of an engine, or with several calls to a server."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import cast

from llmchat.engines import Engine
from llmchat.engines.capabilities import Answer, BatchEngine, Batches, unwrap
from llmchat.errors import LlmchatError, NetworkError, OutOfResources
from llmchat.server.choice import Choice

# What ends a run: the next line would fail for the same reason.
ENDS = (NetworkError, OutOfResources)


class Task:
    """One answer that is asked for. line: its number. error: why there is none."""

    def __init__(self, choice: Choice, line: int):
        self.choice = choice
        self.line = line
        self.error: LlmchatError | None = None
        self.answer: Answer | None = None

    def close(self) -> None:
        if self.answer is not None:
            self.answer.close()


# Seconds between two looks at a pipe that has nothing yet, while no answer is made.
_PAUSE_S = 0.02


def completed(engine: Engine, tasks: Iterator[Task | None], parallel: int) -> Generator[Task]:
    """Yields each task when its answer is complete; at most `parallel` are answered at once.

    tasks: None where the next one is not there yet. Raises what ends a run; a task with any other
    error has it.
    """
    worker = unwrap(engine)
    if isinstance(worker, Batches):
        batches = cast(BatchEngine, worker)
        batches.slots = max(batches.slots, parallel)
        return _over_slots(batches, tasks, parallel)
    if parallel == 1:
        return _one_by_one(engine, tasks)
    return _streamed(engine, tasks, parallel)


class _Source:
    """The tasks as far as they are there. over: whether there will be no more."""

    def __init__(self, tasks: Iterator[Task | None]):
        self._tasks = tasks
        self.over = False

    def take(self, *, waits: bool) -> Task | None:
        """The next task; None at the end, and if none is available yet unless it waits."""
        while not self.over:
            try:
                task = next(self._tasks)
            except StopIteration:
                self.over = True
                break
            if task is not None or not waits:
                return task
            time.sleep(_PAUSE_S)
        return None


def _over_slots(
    engine: BatchEngine, tasks: Iterator[Task | None], parallel: int
) -> Generator[Task]:
    """Continuous batching: an answer that ends makes room for the next one."""
    running: list[Task] = []
    source = _Source(tasks)
    try:
        while True:
            while len(running) < parallel and (task := source.take(waits=not running)):
                if _begin(engine, task):
                    running.append(task)
                else:
                    yield task
            if not running:
                return
            _step(engine, running)
            yield from [task for task in running if _is_over(task)]
            running = [task for task in running if not _is_over(task)]
    finally:
        for task in running:
            task.close()


def _is_over(task: Task) -> bool:
    return task.error is not None or task.choice.finish is not None


def _begin(engine: BatchEngine, task: Task) -> bool:
    """Start an answer; False where the engine refuses it."""
    generation = task.choice.generation
    try:
        task.answer = engine.begin(generation.prompt, generation.sampling, None)
    except ENDS:
        raise
    except LlmchatError as error:
        task.error = error
    return task.error is None


def _step(engine: BatchEngine, running: list[Task]) -> None:
    """Run the model once. Which of the answers an error belongs to is not known: it ends all."""
    answers = [task.answer for task in running if task.answer is not None]
    try:
        found = engine.step(answers)
    except ENDS:
        raise
    except LlmchatError as error:
        for task in running:
            task.error = error
            task.close()
        return
    for task, events in zip(running, found, strict=True):
        task.choice.feed(events)
        if task.choice.finish:
            task.close()


def _one_by_one(engine: Engine, tasks: Iterator[Task | None]) -> Generator[Task]:
    """In this thread, which Ctrl-C interrupts."""
    source = _Source(tasks)
    while task := source.take(waits=True):
        yield _stream(engine, task)


def _streamed(engine: Engine, tasks: Iterator[Task | None], parallel: int) -> Generator[Task]:
    """Each answer in a thread, for engines that wait for a server."""
    running: set[Future[Task]] = set()
    source = _Source(tasks)
    with ThreadPoolExecutor(parallel) as threads:
        try:
            while True:
                while len(running) < parallel and (task := source.take(waits=not running)):
                    running.add(threads.submit(_stream, engine, task))
                if not running:
                    return
                pause = None if source.over or len(running) == parallel else _PAUSE_S
                done, running = wait(running, pause, FIRST_COMPLETED)
                yield from [one.result() for one in done]
        finally:
            for waiting in running:
                waiting.cancel()


def _stream(engine: Engine, task: Task) -> Task:
    generation = task.choice.generation
    try:
        with closing(engine.stream(generation.prompt, generation.sampling)) as events:
            for event in events:
                task.choice.feed([event])  # type: ignore[list-item]
    except ENDS:
        raise
    except LlmchatError as error:
        task.error = error
    return task
