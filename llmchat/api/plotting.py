"""`llmchat.plot`: plots of results that were saved, for Python programs and `llmchat plot`."""

import json
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.api.place import here
from llmchat.bench.report import Benchmark
from llmchat.bench.speed_plot import speed_figure
from llmchat.errors import UsageError
from llmchat.evaluate.measure import Result
from llmchat.evaluate.report import Row, rows
from llmchat.evaluate.score_plot import score_figure
from llmchat.finetune.loss_plot import Losses, curve_of, loss_figure
from llmchat.output.plots import showing
from llmchat.output.plots.figures import Figure
from llmchat.parse_guard import reading
from llmchat.settings import World

_MOST_BYTES = 512 * 1024 * 1024
_WANTED = (
    "a folder of `llmchat finetune`, or what `evaluate --json`, `evaluate --output` or"
    " `bench --json` wrote"
)


class Plot(Struct, frozen=True):
    """Curves or bars. A notebook shows a picture, `print` shows characters."""

    figure: Figure
    world: World

    def save(self, path: str | Path) -> None:
        """Write a `.png` (requires Pillow) or a `.svg`."""
        file = showing.writable(str(path))
        file.write_bytes(showing.file_bytes(self.figure, file.suffix))

    def __str__(self) -> str:
        return showing.text(self.figure, self.world, self.world.stdout)

    def _repr_html_(self) -> str:
        from llmchat.output.plots.svg import notebook_html

        return notebook_html(self.figure)

    def _repr_svg_(self) -> str:
        from llmchat.output.plots.svg import svg_file

        return svg_file(self.figure)


def plot(*results: str | Path, world: World | None = None) -> Plot:
    """Plot what `llmchat finetune`, `evaluate` and `bench` wrote.

    results: folders of fine-tunes, finished or not, and files: run.json, and the output of
    `evaluate --json`, `evaluate --output` and `bench --json`; `-` is stdin. Several fine-tunes
    share one chart, as do several evaluations of one task. Raises UsageError for other files.
    """
    world = world or here()
    if not results:
        raise UsageError("there is nothing to plot", "name a folder or a file of results")
    return Plot(_figure([_read(str(result), world) for result in results]), world)


_Curve = list[tuple[int, float | None, float | None]]


class _Losses(Struct):
    name: str
    losses: Losses


class _Scores(Struct):
    name: str
    rows: list[Row]


_Saved = _Losses | _Scores | Benchmark


def _figure(saved: Iterable[_Saved]) -> Figure:
    found = list(saved)
    runs = _named(one for one in found if isinstance(one, _Losses))
    scores = [one for one in found if isinstance(one, _Scores)]
    figures = [loss_figure(runs)] if runs else []
    if scores:
        figures.append(score_figure(_distinct(scores)))
    figures += [speed_figure(one) for one in found if isinstance(one, Benchmark)]
    title = figures[0].title if len(figures) == 1 else ""
    return Figure(title, tuple(chart for one in figures for chart in one.charts))


def _named(runs: Iterable[_Losses]) -> dict[str, Losses]:
    """The losses of runs by name; a second run of a name gets the next free number."""
    named: dict[str, Losses] = {}
    for run in runs:
        numbered = (f"{run.name} ({number})" for number in count(2))
        named[next(name for name in chain([run.name], numbered) if name not in named)] = run.losses
    return named


def _distinct(scores: list[_Scores]) -> list[Row]:
    """The rows of all evaluations; a model that appears twice in a task gets the file's name."""
    keys = [(row.task, row.kind, row.model) for one in scores for row in one.rows]
    return [
        replace(row, model=f"{row.model} ({one.name})")
        if keys.count((row.task, row.kind, row.model)) > 1
        else row
        for one in scores
        for row in one.rows
    ]


def _read(name: str, world: World) -> _Saved:
    path = Path(name).expanduser()
    if name != "-" and path.is_dir():
        return _read_run(name, path, world)
    text = world.read_text(name, _MOST_BYTES)
    stem = "stdin" if name == "-" else path.parent.name if path.stem == "run" else path.stem
    what = "stdin" if name == "-" else name
    with reading(what, UsageError, _WANTED):
        saved = _decoded(text, stem)
    if saved is None:
        raise UsageError(f"{what} has no results to plot", _WANTED)
    return saved


def _read_run(name: str, folder: Path, world: World) -> _Saved:
    """A finished run has run.json; one that is under way has the state of its last checkpoint."""
    if (folder / "run.json").exists():
        return _read(str(folder / "run.json"), world)
    states = sorted(
        folder.glob("checkpoints/checkpoint-*/trainer_state.json"),
        key=lambda path: path.stat().st_mtime,
    )
    if not states:
        raise UsageError(
            f"{name} is not the folder of a fine-tune: it has neither run.json nor a checkpoint",
            "name the --output folder of `llmchat finetune`",
        )
    found = _read(str(states[-1]), world)
    assert isinstance(found, _Losses)
    return _Losses(folder.resolve().name, found.losses)


def _decoded(text: str, name: str) -> _Saved | None:
    if text.lstrip().startswith('{"key":'):
        lines = [line for line in text.splitlines() if line.strip()]
        results = [msgspec.json.decode(line, type=Result) for line in lines]
        return _Scores(name, rows(results))
    # Not msgspec: the Trainer writes NaN, as Python's json does.
    saved = json.loads(text)
    return _from_object(saved, name) if isinstance(saved, dict) else None


def _from_object(saved: dict[str, Any], name: str) -> _Saved | None:
    if "log_history" in saved:
        return _Losses(name, msgspec.convert(curve_of(saved["log_history"]), _Curve))
    if "trained" in saved:
        curve = msgspec.convert(saved["trained"]["curve"], _Curve)
        return _Losses(str(saved.get("name") or name), curve)
    if "rows" in saved and "differences" in saved:
        return _Scores(name, msgspec.convert(saved["rows"], list[Row]))
    if "rows" in saved and "decode_tokens" in saved:
        return msgspec.convert(saved, Benchmark)
    return None
