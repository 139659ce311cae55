"""Run items on models one after another.

Each answer is written to the file at once, so that an interrupted run can be resumed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from llmchat.errors import LlmchatError, UsageError
from llmchat.evaluate.candidates import Candidate, with_model
from llmchat.evaluate.early_end import keep_results
from llmchat.evaluate.measure import AskOptions, Result, ask
from llmchat.evaluate.tasks import Item
from llmchat.models.open_model import OpenModel
from llmchat.output.progress import StepProgress
from llmchat.output.row_file import complete_rows, remove_broken_row
from llmchat.settings import World


class Outcome(Struct):
    """The results of a run. interrupted: by Ctrl-C; error: what ended the run early."""

    results: list[Result]
    interrupted: bool = False
    error: LlmchatError | None = None


class ResultFile:
    """A file of results, one JSON object a line, each written at once; no path: keep nothing.

    resume: read the results in it into `kept`, by key, and remove an incomplete last line. Raises
    UsageError if the file exists and is not to be resumed.
    """

    def __init__(self, path: Path | None, *, resume: bool = False):
        self.kept: dict[str, Result] = {}
        self._path = path
        if path is None:
            if resume:
                raise UsageError("--resume continues a file of results", "name it with --output")
            return
        if path.exists() and path.stat().st_size:
            if not resume:
                raise UsageError(
                    f"{path} is there already", "--resume goes on with it; another name begins anew"
                )
            self._read(path)

    def write(self, result: Result) -> None:
        if self._path:
            with self._path.open("ab") as stream:
                stream.write(msgspec.json.encode(result) + b"\n")

    def _read(self, path: Path) -> None:
        with path.open("r+b") as file:
            for number, _, line in complete_rows(file):
                try:
                    result = msgspec.json.decode(line, type=Result)
                except msgspec.DecodeError as error:
                    raise UsageError(
                        f"{path}, line {number} is not a result of an evaluation: {error}"
                    ) from error
                self.kept[result.key] = result
            remove_broken_row(file, str(path), (b'{"key":',))


def run(
    candidates: Sequence[Candidate],
    items: Sequence[Item],
    options: AskOptions,
    world: World,
    output: ResultFile,
    *,
    quiet: bool = False,
) -> Outcome:
    """Ask every model every item. Ctrl-C and errors end the run and keep its results."""
    outcome = Outcome([])
    progress = StepProgress(world, len(candidates) * len(items), quiet=quiet)
    with keep_results(outcome, progress):
        for candidate in candidates:
            _run_one(candidate, items, options, world, output, progress, outcome, quiet)
    return outcome


def _run_one(
    candidate: Candidate,
    items: Sequence[Item],
    options: AskOptions,
    world: World,
    output: ResultFile,
    progress: StepProgress,
    outcome: Outcome,
    quiet: bool,
) -> None:
    keys = [key(candidate, item, options) for item in items]
    kept = [output.kept[one] for one in keys if one in output.kept]
    outcome.results += [msgspec.structs.replace(result, model=candidate.label) for result in kept]
    todo = [(one, item) for one, item in zip(keys, items, strict=True) if one not in output.kept]
    progress.begin(candidate.label, len(items), len(kept))

    def work(opened: OpenModel) -> None:
        for one, item in todo:
            progress.started(item.task)
            result = ask(
                item, opened, options, key=one, model=candidate.label, opening=candidate.opening
            )
            output.write(result)
            outcome.results.append(result)
            progress.done()

    if todo:
        with_model(candidate, world, work, quiet=quiet)


def key(candidate: Candidate, item: Item, options: AskOptions) -> str:
    """A short hash of everything that determines a result.

    That is the model's files, weights and format, sampling, context, the item and its number.
    """
    preset = candidate.preset
    decides = (
        candidate.made_by,
        preset.sampling,
        preset.context,
        preset.system,
        options,
        msgspec.structs.replace(item, where=""),
    )
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]
