"""`llmchat plot` and `llmchat.plot` read what the other commands wrote."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.worlds import make_world

import llmchat
from llmchat.bench.report import Benchmark
from llmchat.bench.report import Row as Speed
from llmchat.cli import main
from llmchat.errors import UsageError
from llmchat.evaluate.measure import Result
from llmchat.evaluate.report import for_json

CURVE = [[1, 2.0, None], [2, 1.0, 1.5], [3, None, None], [4, 0.5, 0.9]]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run `one`, and a run `two` that is under way."""
    (tmp_path / "one").mkdir()
    trained = {"curve": CURVE, "steps": 4}
    (tmp_path / "one/run.json").write_text(json.dumps({"name": "one", "trained": trained}))
    for step in (2, 10):
        folder = tmp_path / f"two/checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        log = [{"step": 1, "loss": 3.0}, {"step": step, "eval_loss": float("nan")}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    return tmp_path


def results() -> list[Result]:
    scores: Any = {"a": (1.0, 0.0, 1.0), "b": (1.0, 1.0, 1.0)}
    return [
        msgspec.convert(
            {"key": f"{model}{item}", "model": model, "item": item, "task": "quiz",
             "kind": "exact", "score": score, "seconds": 0.1},
            Result,
            strict=False,
        )
        for model, found in scores.items()
        for item, score in enumerate(found)
    ]  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Path]:
    """Files as `evaluate --json`, `evaluate --output` and `bench --json` write them."""
    evaluation = for_json([{"label": "a"}, {"label": "b"}], results(), False, None)
    benchmark = Benchmark(
        model="smollm2", machine={}, date="2026-11-26", versions={}, rounds=3, prompt_tokens=541,
        decode_tokens=64, skipped=[], rows=[
            Speed("llmchat int8", "int8", decode_tps=175.0, runs={"decode_tps": [170, 175, 181]}),
            Speed("llama.cpp", "Q8_0", error="not installed"),
        ],
    )  # fmt: skip
    texts = {
        "evaluation": msgspec.json.encode(evaluation),
        "results": b"".join(msgspec.json.encode(one) + b"\n" for one in results()),
        "bench": msgspec.json.encode(benchmark),
    }
    paths = {name: tmp_path / f"{name}.json" for name in texts}
    for name, text in texts.items():
        paths[name].write_bytes(text)
    return paths


def test_several_runs_share_one_chart(runs: Path) -> None:
    plot = llmchat.plot(runs / "one", runs / "two", world=make_world(runs))
    [chart] = plot.figure.charts
    assert [one.label for one in chart.curves] == [  # type: ignore[union-attr]
        "one, training", "one, held out", "two, training", "two, held out",
    ]  # fmt: skip
    assert plot.figure.title == "one, two"
    text = str(plot)
    assert (
        "gaps where values are not finite: 1 of one, training, 1 of two, held out"
        in text.replace("\n", " ")
    )


def test_two_runs_of_one_name_are_numbered(runs: Path) -> None:
    plot = llmchat.plot(runs / "one", runs / "one/run.json", world=make_world(runs))
    assert plot.figure.title == "one, one (2)"


def test_a_number_never_hides_a_run_of_that_name(runs: Path) -> None:
    (runs / "one (2)").mkdir()
    saved = {"name": "one (2)", "trained": {"curve": CURVE}}
    (runs / "one (2)/run.json").write_text(json.dumps(saved))
    plot = llmchat.plot(runs / "one (2)", runs / "one", runs / "one", world=make_world(runs))
    assert plot.figure.title == "one (2), one, one (3)"


def test_a_plot_in_a_notebook_and_in_a_file(runs: Path) -> None:
    plot = llmchat.plot(runs / "one", world=make_world(runs))
    assert "<svg" in plot._repr_html_() and "<style" not in plot._repr_html_()
    assert plot._repr_svg_().startswith("<svg")
    plot.save(runs / "plot.png")
    assert (runs / "plot.png").read_bytes().startswith(b"\x89PNG")
    for name in (str(runs / "plot.pdf"), "text", "image"):
        with pytest.raises(UsageError, match=f"^`{re.escape(name)}` is not the name of a file"):
            plot.save(name)


@pytest.mark.parametrize("name", ["evaluation", "results"])
def test_scores_of_an_evaluation(saved: dict[str, Path], tmp_path: Path, name: str) -> None:
    [chart] = llmchat.plot(saved[name], world=make_world(tmp_path)).figure.charts
    assert (chart.title, chart.unit, chart.end) == ("quiz, exact: right answers", "%", 100)  # type: ignore[union-attr]
    first, second = chart.bars  # type: ignore[union-attr]
    assert (first.label, round(first.value, 1), second.value) == ("a", 66.7, 100)
    # Wilson's interval of 2 of 3.
    assert first.low == pytest.approx(20.77, abs=0.01) and first.high == pytest.approx(
        93.85, abs=0.01
    )


def test_two_evaluations_of_one_model_are_told_apart(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    plot = llmchat.plot(saved["evaluation"], saved["results"], world=make_world(tmp_path))
    [chart] = plot.figure.charts
    assert [bar.label for bar in chart.bars] == [  # type: ignore[union-attr]
        "a (evaluation)", "b (evaluation)", "a (results)", "b (results)",
    ]  # fmt: skip


def test_speeds_have_the_range_of_their_rounds(saved: dict[str, Path], tmp_path: Path) -> None:
    decode, prefill = llmchat.plot(saved["bench"], world=make_world(tmp_path)).figure.charts
    first, second = decode.bars  # type: ignore[union-attr]
    assert (first.value, first.low, first.high, second.value) == (175.0, 170.0, 181.0, None)
    assert (decode.title, prefill.title) == ("smollm2: decode", "smollm2: prefill")


def run(world: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments), world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()


def test_the_command_prints_text_to_a_pipe(runs: Path) -> None:
    code, out, err = run(make_world(runs, COLUMNS="60"), "plot", str(runs / "one"))
    assert (code, err) == (0, "")
    assert out.startswith("one\nloss (cross-entropy per learned token)\n") and "\x1b" not in out


def test_the_command_reads_a_pipe(saved: dict[str, Path], tmp_path: Path) -> None:
    world = make_world(tmp_path, stdin=saved["evaluation"].read_text())
    code, out, _ = run(world, "plot", "-")
    assert code == 0 and out.startswith("quiz, exact: right answers\n")


def test_the_command_writes_a_file(runs: Path) -> None:
    path = runs / "both.svg"
    code, out, err = run(
        make_world(runs), "plot", str(runs / "one"), str(runs / "two"), "--plot", str(path)
    )
    assert (code, out, err) == (0, "", f"plot:    {path}\n") and path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", "has no results to plot"),
        ("[1]", "has no results to plot"),
        ("not JSON", "cannot be read: Expecting value"),
        ('{"trained": {"curve": [[1, "x", 2]]}}', "cannot be read: Expected `float | null`"),
        ('{"trained": 1}', "cannot be read"),
        ('{"rows": [{}], "differences": []}', "cannot be read"),
        ('{"key":"a"}\n', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"trained": {"curve": []}}', "the results hold no values to plot"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "file.json").write_text(text)
    code, out, err = run(make_world(tmp_path), "plot", str(tmp_path / "file.json"))
    assert (code, out) == (2, "") and line in err and err.startswith("error: ")


def test_a_folder_without_a_run_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _, _, err = run(make_world(tmp_path), "plot", str(tmp_path / "empty"))
    assert "is not the folder of a fine-tune: it has neither run.json nor a checkpoint" in err
    _, _, err = run(make_world(tmp_path), "plot", str(tmp_path / "none.json"))
    assert "none.json cannot be read: No such file" in err
